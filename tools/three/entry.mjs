// What the live preview uses of three.js; build.mjs bundles it.
export { BufferAttribute, BufferGeometry, Camera, DoubleSide, Mesh, Scene, ShaderMaterial, SRGBColorSpace, Texture, WebGLRenderer } from "three";
