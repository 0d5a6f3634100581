// What the live preview uses of three.js. To make web/preview/three.mjs anew, in an empty folder with this file:
//   npm install three@0.187.0 esbuild@0.28.2
//   npx esbuild entry.mjs --bundle --minify --format=esm --target=es2022 --legal-comments=inline --outfile=three.mjs
export { BufferAttribute, BufferGeometry, Camera, DoubleSide, Mesh, Scene, ShaderMaterial, SRGBColorSpace, Texture, WebGLRenderer } from "three";
