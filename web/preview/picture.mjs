// Draws the head without WebGL: triangles with a depth buffer, one colour a triangle. Slower and coarser, and works everywhere.
import { frameOf, viewOf } from "./camera.mjs";
import { BACKDROP, DARKEST } from "./look.mjs";
import { apply, harmonics } from "./math.mjs";

const SIDE = 320; // longest side of the drawing, px
const LUMINANCE = [0.2126, 0.7152, 0.0722];

const decode = Float32Array.from({ length: 256 }, (_, i) => (i / 255 <= 0.04045 ? i / 255 / 12.92 : ((i / 255 + 0.055) / 1.055) ** 2.4));
const encode = (x) => 255 * (x <= 0.0031308 ? x * 12.92 : 1.055 * x ** (1 / 2.4) - 0.055);

export class PictureView {
  /** texture: the albedo as ImageBitmap. */
  constructor(head, texture) {
    this.head = head;
    this.albedo = albedoOfFaces(head, texture);
    this.canvas = document.createElement("canvas");
  }

  /** Draws the deformed head onto a 2D context, filling its canvas. */
  draw(context, factors, filmed, { orbit, wireframe }) {
    const scale = Math.min(SIDE / Math.max(context.canvas.width, context.canvas.height), 1);
    const [width, height] = [context.canvas.width, context.canvas.height].map((side) => Math.max(Math.round(side * scale), 1));
    Object.assign(this.canvas, { width, height });
    const own = this.canvas.getContext("2d");
    const picture = own.createImageData(width, height);
    new Uint32Array(picture.data.buffer).fill(0xff000000 | BACKDROP);

    const screen = this.#project(factors, frameOf(filmed, this.head.meta, width / height), orbit, width, height);
    const colours = this.#shade(factors);
    fill(picture, screen, this.head.t.faces, colours);
    own.putImageData(picture, 0, 0);
    if (wireframe) outline(own, screen, this.head.t.faces);
    context.drawImage(this.canvas, 0, 0, context.canvas.width, context.canvas.height);
  }

  #project(factors, frame, orbit, width, height) {
    const { head } = this;
    const { rotation, translation } = viewOf(factors, frame, orbit);
    const screen = new Float32Array(head.count * 3);
    for (let v = 0; v < head.count * 3; v += 3) {
      const [x, y, z] = apply(rotation, head.vertices.subarray(v, v + 3)).map((value, k) => value + translation[k]);
      screen[v] = ((x / -z - frame.left) / (frame.right - frame.left)) * width;
      screen[v + 1] = ((frame.top - y / -z) / (frame.top - frame.bottom)) * height;
      screen[v + 2] = -z;
    }
    return screen;
  }

  /** RGB 0..255 of each triangle. */
  #shade({ rotation, illumination }) {
    const { head } = this;
    const { openness, hidden, faces } = head.t;
    const lit = new Float32Array(head.count * 3);
    const floor = 0.02 * Math.max(0.282095 * LUMINANCE.reduce((sum, w, c) => sum + w * illumination[c], 0), 1e-4);
    for (let v = 0; v < head.count; v++) {
      const h = harmonics(apply(rotation, head.normals.subarray(v * 3, v * 3 + 3)));
      let rgb = [0, 1, 2].map((c) => Math.max(floor, h.reduce((sum, value, k) => sum + value * illumination[k * 3 + c], 0)));
      if (hidden[v]) rgb = Array(3).fill(((rgb[0] + rgb[1] + rgb[2]) / 3) * Math.max(openness[v], DARKEST));
      lit.set(rgb, v * 3);
    }
    return this.albedo.map((albedo, i) => {
      const [face, c] = [i - (i % 3), i % 3];
      return encode((albedo * (lit[faces[face] * 3 + c] + lit[faces[face + 1] * 3 + c] + lit[faces[face + 2] * 3 + c])) / 3);
    });
  }
}

/** Linear RGB of the texture in the middle of each triangle. */
function albedoOfFaces({ t: { uv, faces } }, texture) {
  const canvas = Object.assign(document.createElement("canvas"), { width: texture.width, height: texture.height });
  const context = canvas.getContext("2d");
  context.drawImage(texture, 0, 0);
  const { data } = context.getImageData(0, 0, texture.width, texture.height);
  const out = new Float32Array(faces.length);
  for (let f = 0; f < faces.length; f += 3) {
    const [u, v] = [0, 1].map((k) => (uv[faces[f] * 2 + k] + uv[faces[f + 1] * 2 + k] + uv[faces[f + 2] * 2 + k]) / 3);
    const x = Math.min(Math.floor(u * texture.width), texture.width - 1);
    const y = Math.min(Math.floor(v * texture.height), texture.height - 1);
    for (let c = 0; c < 3; c++) out[f + c] = decode[data[(y * texture.width + x) * 4 + c]];
  }
  return out;
}

/** Triangles into a picture, nearest wins. screen: x, y, depth a vertex. */
function fill({ data, width, height }, screen, faces, colours) {
  const nearest = new Float32Array(width * height).fill(Infinity);
  for (let f = 0; f < faces.length; f += 3) {
    const [a, b, c] = [faces[f] * 3, faces[f + 1] * 3, faces[f + 2] * 3];
    const [ax, ay, bx, by, cx, cy] = [screen[a], screen[a + 1], screen[b], screen[b + 1], screen[c], screen[c + 1]];
    const area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);
    if (area >= 0) continue; // counter-clockwise seen from outside, and y points down
    const depth = (screen[a + 2] + screen[b + 2] + screen[c + 2]) / 3;
    const [left, right] = [Math.max(Math.ceil(Math.min(ax, bx, cx) - 0.5), 0), Math.min(Math.floor(Math.max(ax, bx, cx) - 0.5), width - 1)];
    const [top, bottom] = [Math.max(Math.ceil(Math.min(ay, by, cy) - 0.5), 0), Math.min(Math.floor(Math.max(ay, by, cy) - 0.5), height - 1)];
    for (let row = top; row <= bottom; row++) {
      for (let column = left; column <= right; column++) {
        const [x, y] = [column + 0.5, row + 0.5];
        if ((bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0) continue;
        if ((cx - bx) * (y - by) - (cy - by) * (x - bx) > 0) continue;
        if ((ax - cx) * (y - cy) - (ay - cy) * (x - cx) > 0) continue;
        const pixel = row * width + column;
        if (depth >= nearest[pixel]) continue;
        nearest[pixel] = depth;
        for (let k = 0; k < 3; k++) data[pixel * 4 + k] = colours[f + k];
      }
    }
  }
}

function outline(context, screen, faces) {
  context.strokeStyle = "rgba(64, 216, 255, 0.5)";
  context.lineWidth = 0.5;
  context.beginPath();
  for (let f = 0; f < faces.length; f += 3) {
    const corners = [faces[f], faces[f + 1], faces[f + 2]].map((v) => [screen[v * 3], screen[v * 3 + 1]]);
    const [[ax, ay], [bx, by], [cx, cy]] = corners;
    if ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax) >= 0) continue;
    context.moveTo(ax, ay);
    context.lineTo(bx, by);
    context.lineTo(cx, cy);
    context.closePath();
  }
  context.stroke();
}
