// What the Edit nodes do to the factors of a face: dynamicface/edit.py on one frame. Tables and constants come with the payload.
import { DEGREE, apply, fromEuler, harmonics, multiply, turnHarmonics } from "./math.mjs";

/** Dials, single channels and intensity; values: {name: number}, what is missing is neutral. */
export function editExpression(factors, values, { tensors, meta }) {
  const count = meta.channels.length;
  const add = new Float64Array(count);
  const release = new Float64Array(count).fill(1);
  const gaze = Float64Array.from(factors.gaze);
  meta.dials.forEach((name, dial) => {
    const value = values[name] ?? 0;
    if (value === 0) return;
    const strength = Math.abs(value);
    const [active, passive] = value > 0 ? [tensors.dial_up, tensors.dial_down] : [tensors.dial_down, tensors.dial_up];
    for (let k = 0; k < count; k++) {
      const at = dial * count + k;
      add[k] += strength * active[at];
      if (passive[at] !== 0 && active[at] === 0) release[k] *= 1 - Math.min(strength, 1);
    }
    for (let k = 0; k < 4; k++) gaze[k] += value * tensors.dial_gaze[dial * 2 + (k % 2)];
  });
  const intensity = values.intensity ?? 1;
  const expression = meta.channels.map((name, k) => {
    const value = factors.expression[k] * intensity * release[k] + add[k] + (values[name] ?? 0);
    return Math.min(Math.max(value, 0), meta.strongest);
  });
  const moved = intensity !== 1 || [...meta.dials, ...meta.channels].some((name) => values[name]);
  return moved ? { ...factors, expression, gaze } : factors;
}

/** Turns the head about the top of the neck. */
export function editPose(factors, { yaw = 0, pitch = 0, roll = 0 }, { meta }) {
  if (!yaw && !pitch && !roll) return factors;
  const rotation = multiply(factors.rotation, fromEuler(yaw, pitch, roll));
  const before = apply(factors.rotation, meta.neck);
  const after = apply(rotation, meta.neck);
  return { ...factors, rotation, translation: Array.from(factors.translation, (t, k) => t + before[k] - after[k]) };
}

/** How far each of the payload's identity steps is taken. */
export function editIdentity(factors, values, { meta }) {
  const identity = meta.identity.map((name) => values[name] ?? 0);
  return identity.some(Boolean) ? { ...factors, identity } : factors;
}

/** Turns the filmed light, fades to a key light, tints and exposes. */
export function editLight(factors, values, { tensors }) {
  const { azimuth = 45, elevation = 30, strength = 0, warmth = 0, exposure = 0, turn = 0 } = values;
  if (!strength && !warmth && !exposure && !turn) return factors;
  const luminance = (rgb) => rgb.reduce((sum, value, c) => sum + value * tensors.luminance[c], 0);
  const frontal = (h) => h.reduce((sum, value, k) => sum + value * tensors.light_frontal[k], 0);

  let light = [0, 1, 2].map((c) => Array.from({ length: 9 }, (_, k) => factors.illumination[k * 3 + c])); // per colour
  if (turn) light = light.map((h) => turnHarmonics(h, fromEuler(turn, 0, 0)));
  if (strength) {
    const level = light.map(frontal);
    const [a, e] = [azimuth * DEGREE, elevation * DEGREE];
    const direction = [Math.sin(a) * Math.cos(e), Math.sin(e), Math.cos(a) * Math.cos(e)];
    const white = harmonics(direction).map((value, k) => value * tensors.light_lobe[k]);
    const gain = luminance(level) / luminance(level.map((l) => l * frontal(white)));
    light = light.map((h, c) =>
      h.map((value, k) => {
        const target = 0.7 * white[k] * level[c] * gain + (k === 0 ? (0.3 * level[c]) / 0.282095 : 0);
        return value + strength * (target - value);
      }),
    );
  }
  const tint = [2 ** (0.45 * warmth), 1, 2 ** (-0.6 * warmth)];
  const scale = tint.map((value) => (value / luminance(tint)) * 2 ** exposure);
  return { ...factors, illumination: Float64Array.from({ length: 27 }, (_, i) => light[i % 3][(i - (i % 3)) / 3] * scale[i % 3]) };
}

/** Node id -> its edit. The node that does everything in one edits expression, then pose. */
export const EDITS = {
  DynamicFace_EditExpression: editExpression,
  DynamicFace_EditPose: editPose,
  DynamicFace_EditIdentity: editIdentity,
  DynamicFace_EditLight: editLight,
  DynamicFace_Expression: (factors, values, payload) => editPose(editExpression(factors, values, payload), values, payload),
};
