// Draws the head with three.js. One renderer, and so one WebGL context, serves every preview on the page; browsers allow only a few.
import {
  BufferAttribute,
  BufferGeometry,
  Camera,
  DoubleSide,
  Mesh,
  Scene,
  ShaderMaterial,
  SRGBColorSpace,
  Texture,
  WebGLRenderer,
} from "./three.mjs";
import { frameOf, viewOf } from "./camera.mjs";
import { BACKDROP, DARKEST, NEAR, FAR } from "./look.mjs";

const VERTEX = `
attribute float openness;
attribute float hidden;
uniform mat3 toLight;
varying vec3 vNormal;
varying vec2 vUv;
varying vec2 vMouth;
void main() {
  vNormal = toLight * normal;
  vUv = uv;
  vMouth = vec2(hidden, max(openness, ${DARKEST.toFixed(3)}));
  gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0);
}`;

const FRAGMENT = `
uniform vec3 light[9];
uniform sampler2D albedo;
varying vec3 vNormal;
varying vec2 vUv;
varying vec2 vMouth;
vec3 encode(vec3 x) {
  return mix(x * 12.92, 1.055 * pow(max(x, vec3(0.0031308)), vec3(1.0 / 2.4)) - 0.055, step(0.0031308, x));
}
void main() {
  vec3 n = normalize(vNormal);
  vec3 shade = 0.282095 * light[0] + 0.488603 * (n.y * light[1] + n.z * light[2] + n.x * light[3])
    + 1.092548 * (n.x * n.y * light[4] + n.y * n.z * light[5] + n.x * n.z * light[7])
    + 0.315392 * (3.0 * n.z * n.z - 1.0) * light[6] + 0.546274 * (n.x * n.x - n.y * n.y) * light[8];
  float ambient = 0.282095 * dot(light[0], vec3(0.2126, 0.7152, 0.0722));
  shade = max(shade, vec3(0.02 * max(ambient, 1e-4)));
  if (vMouth.x > 0.5) shade = vec3(dot(shade, vec3(1.0 / 3.0)) * vMouth.y);
  gl_FragColor = vec4(encode(texture2D(albedo, vUv).rgb * shade), 1.0);
}`;

const WIRE = "void main() { gl_FragColor = vec4(0.25, 0.85, 1.0, 0.22); }";

let shared; // the page's renderer

function renderer() {
  if (!shared) {
    shared = new WebGLRenderer({ antialias: true, preserveDrawingBuffer: true, powerPreference: "low-power" });
    shared.setPixelRatio(1);
    shared.setClearColor(BACKDROP, 1);
  }
  return shared;
}

export class WebGLView {
  /** texture: the albedo as ImageBitmap. Throws where the browser gives no WebGL. */
  constructor(head, texture) {
    this.renderer = renderer();
    this.head = head;
    this.geometry = new BufferGeometry();
    this.geometry.setAttribute("position", new BufferAttribute(head.vertices, 3));
    this.geometry.setAttribute("normal", new BufferAttribute(head.normals, 3));
    this.geometry.setAttribute("uv", new BufferAttribute(head.t.uv, 2));
    this.geometry.setAttribute("openness", new BufferAttribute(head.t.openness, 1));
    this.geometry.setAttribute("hidden", new BufferAttribute(Float32Array.from(head.t.hidden), 1));
    this.geometry.setIndex(new BufferAttribute(Uint32Array.from(head.t.faces), 1));
    this.texture = new Texture(texture);
    Object.assign(this.texture, { flipY: false, colorSpace: SRGBColorSpace, needsUpdate: true });
    this.uniforms = {
      toLight: { value: new Float32Array(9) },
      light: { value: new Float32Array(27) },
      albedo: { value: this.texture },
    };
    const solid = new ShaderMaterial({ vertexShader: VERTEX, fragmentShader: FRAGMENT, uniforms: this.uniforms, side: DoubleSide });
    const wire = new ShaderMaterial({ vertexShader: VERTEX, fragmentShader: WIRE, uniforms: this.uniforms, wireframe: true, transparent: true });
    Object.assign(solid, { polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1 });
    this.meshes = [new Mesh(this.geometry, solid), new Mesh(this.geometry, wire)];
    this.scene = new Scene();
    this.meshes.forEach((mesh) => {
      mesh.frustumCulled = false;
      mesh.matrixAutoUpdate = false;
      this.scene.add(mesh);
    });
    this.camera = new Camera();
  }

  /** Draws the deformed head onto a 2D context, filling its canvas. */
  draw(context, factors, filmed, { orbit, wireframe }) {
    const { width, height } = context.canvas;
    const frame = frameOf(filmed, this.head.meta, width / height);
    const { rotation: r, translation: t } = viewOf(factors, frame, orbit);
    const edges = [frame.left, frame.right, frame.top, frame.bottom].map((tangent) => tangent * NEAR);
    this.camera.projectionMatrix.makePerspective(...edges, NEAR, FAR);
    this.camera.projectionMatrixInverse.copy(this.camera.projectionMatrix).invert();
    for (const mesh of this.meshes) {
      mesh.matrix.set(r[0], r[1], r[2], t[0], r[3], r[4], r[5], t[1], r[6], r[7], r[8], t[2], 0, 0, 0, 1);
      mesh.matrixWorldNeedsUpdate = true;
    }
    const m = factors.rotation; // the light stands in the filmed camera, whatever the orbit
    this.uniforms.toLight.value.set([m[0], m[3], m[6], m[1], m[4], m[7], m[2], m[5], m[8]]);
    this.uniforms.light.value.set(factors.illumination);
    this.geometry.attributes.position.needsUpdate = true;
    this.geometry.attributes.normal.needsUpdate = true;
    this.meshes[1].visible = wireframe;
    this.renderer.setSize(width, height, false);
    this.renderer.render(this.scene, this.camera);
    context.drawImage(this.renderer.domElement, 0, 0);
  }

  dispose() {
    this.geometry.dispose();
    this.texture.dispose();
    this.meshes.forEach((mesh) => mesh.material.dispose());
  }
}
