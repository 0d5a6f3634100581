// The head model's vertices (dynamicface/prior/head.py and lids.py) for one person, from a payload and the factors of a face.
import { about, multiply } from "./math.mjs";

const SIDES = ["left", "right"];

export class Head {
  constructor({ tensors, shapes, meta }) {
    this.t = tensors;
    this.meta = meta;
    this.count = shapes.uv[0];
    this.vertices = new Float32Array(this.count * 3);
    this.normals = new Float32Array(this.count * 3);
    this.lids = SIDES.filter((side) => `lids_${side}.upper` in tensors).map((side) => ({
      ...Object.fromEntries(
        ["upper", "lower", "lower_weight", "region", "follow", "shell", "travel"].map((name) => [name, tensors[`lids_${side}.${name}`]]),
      ),
      blink: meta.channels.indexOf(side === "left" ? "eyeBlinkLeft" : "eyeBlinkRight"),
    }));
  }

  /** Vertices (V * 3) in model space, metres, into this.vertices; their normals into this.normals. */
  deform({ expression, gaze, identity }) {
    const { t, vertices } = this;
    vertices.set(t.neutral);
    const eyes = this.#reshape(identity);
    const weights = this.#corrected(expression);
    for (let e = 0; e < weights.length; e++) {
      const weight = weights[e] * t.morph_scale[e];
      if (weight === 0) continue;
      for (let i = t.morph_start[e]; i < t.morph_start[e + 1]; i++) {
        const v = t.morph_vertex[i] * 3;
        for (let k = 0; k < 3; k++) vertices[v + k] += weight * t.morph_step[i * 3 + k];
      }
    }
    this.lids.forEach((lids, eye) => {
      this.#close(lids, weights[lids.blink]);
      this.#clear(lids, eyes.centre.slice(eye * 3, eye * 3 + 3), eyes.radius[eye]);
    });
    SIDES.forEach((side, eye) => {
      const turn = multiply(about("y", gaze[eye * 2]), about("x", -gaze[eye * 2 + 1]));
      this.#turn(t[`eye_${side}`], turn, eyes.centre.slice(eye * 3, eye * 3 + 3));
    });
    for (let i = 0; i < vertices.length; i++) vertices[i] += t.offset[i];
    this.#shadeNormals();
  }

  /** Takes the identity's steps; the eyeballs as they lie then. */
  #reshape(identity) {
    const { t, vertices } = this;
    const centre = Float64Array.from(t.eye_centre);
    const radius = Float64Array.from(t.eye_radius);
    (identity ?? []).forEach((amount, step) => {
      if (amount === 0) return;
      const weight = amount * t.identity_scale[step];
      for (let i = 0; i < vertices.length; i++) vertices[i] += weight * t.identity_step[step * vertices.length + i];
      for (let i = 0; i < 6; i++) centre[i] += amount * t.identity_eye_centre[step * 6 + i];
      for (let i = 0; i < 2; i++) radius[i] += amount * t.identity_eye_radius[step * 2 + i];
    });
    return { centre, radius };
  }

  /** mouthClose acts only as far as the jaw is open. */
  #corrected(expression) {
    const weights = Float64Array.from(expression);
    const close = this.meta.channels.indexOf("mouthClose");
    const jaw = this.meta.channels.indexOf("jawOpen");
    if (close >= 0 && jaw >= 0) weights[close] = Math.min(weights[close], Math.max(weights[jaw], 0));
    return weights;
  }

  /** A blink brings the upper rim its share of the way to the lower, on this very face. */
  #close({ upper, lower, lower_weight, region, follow, travel }, blink) {
    const { vertices } = this;
    const points = upper.length;
    const correction = new Float64Array(points * 3);
    for (let p = 0; p < points; p++) {
      const gap = [0, 1, 2].map((k) => {
        const low = vertices[lower[p * 2] * 3 + k] * lower_weight[p * 2] + vertices[lower[p * 2 + 1] * 3 + k] * lower_weight[p * 2 + 1];
        return low - vertices[upper[p] * 3 + k] + blink * travel[p * 3 + k] - (k === 1 ? this.meta.lids.overlap : 0);
      });
      const share = gap[1] > 0 ? 1 : Math.min(Math.max(blink, 0), 1);
      for (let k = 0; k < 3; k++) correction[p * 3 + k] = share * gap[k] - blink * travel[p * 3 + k];
    }
    for (let r = 0; r < region.length; r++) {
      for (let p = 0; p < points; p++) {
        const weight = follow[r * points + p];
        if (weight === 0) continue;
        for (let k = 0; k < 3; k++) vertices[region[r] * 3 + k] += weight * correction[p * 3 + k];
      }
    }
  }

  /** Pushes the lids out of the eyeball. */
  #clear({ shell }, centre, radius) {
    const { vertices } = this;
    for (const vertex of shell) {
      const arm = [0, 1, 2].map((k) => vertices[vertex * 3 + k] - centre[k]);
      const distance = Math.max(Math.hypot(...arm), 1e-6);
      const push = Math.max(this.meta.lids.clearance * radius - distance, 0) / distance;
      for (let k = 0; k < 3; k++) vertices[vertex * 3 + k] += arm[k] * push;
    }
  }

  #turn(ids, m, centre) {
    const { vertices } = this;
    for (const vertex of ids) {
      const [x, y, z] = [0, 1, 2].map((k) => vertices[vertex * 3 + k] - centre[k]);
      for (let k = 0; k < 3; k++) vertices[vertex * 3 + k] = m[k * 3] * x + m[k * 3 + 1] * y + m[k * 3 + 2] * z + centre[k];
    }
  }

  /** Area-weighted unit normals. */
  #shadeNormals() {
    const { vertices: p, normals: n } = this;
    const { faces } = this.t;
    n.fill(0);
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = [faces[f] * 3, faces[f + 1] * 3, faces[f + 2] * 3];
      const [ux, uy, uz] = [p[b] - p[a], p[b + 1] - p[a + 1], p[b + 2] - p[a + 2]];
      const [vx, vy, vz] = [p[c] - p[a], p[c + 1] - p[a + 1], p[c + 2] - p[a + 2]];
      const [x, y, z] = [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
      for (const i of [a, b, c]) {
        n[i] += x;
        n[i + 1] += y;
        n[i + 2] += z;
      }
    }
    for (let i = 0; i < n.length; i += 3) {
      const length = Math.hypot(n[i], n[i + 1], n[i + 2]) || 1;
      n[i] /= length;
      n[i + 1] /= length;
      n[i + 2] /= length;
    }
  }
}
