// 3 x 3 matrices as row-major arrays of nine, and the nine spherical harmonics. Axes and signs: dynamicface/conventions.py.

export const DEGREE = Math.PI / 180;

export function multiply(a, b) {
  return Array.from({ length: 9 }, (_, i) => {
    const row = i - (i % 3);
    return a[row] * b[i % 3] + a[row + 1] * b[(i % 3) + 3] + a[row + 2] * b[(i % 3) + 6];
  });
}

export function transpose(a) {
  return [a[0], a[3], a[6], a[1], a[4], a[7], a[2], a[5], a[8]];
}

export function apply(a, [x, y, z]) {
  return [a[0] * x + a[1] * y + a[2] * z, a[3] * x + a[4] * y + a[5] * z, a[6] * x + a[7] * y + a[8] * z];
}

/** Rx, Ry, Rz by radians. */
export function about(axis, angle) {
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  if (axis === "x") return [1, 0, 0, 0, c, -s, 0, s, c];
  if (axis === "y") return [c, 0, s, 0, 1, 0, -s, 0, c];
  return [c, -s, 0, s, c, 0, 0, 0, 1];
}

/** Yaw, pitch, roll in degrees: Rz(-roll) Ry(yaw) Rx(-pitch). */
export function fromEuler(yaw, pitch, roll) {
  return multiply(about("z", -roll * DEGREE), multiply(about("y", yaw * DEGREE), about("x", -pitch * DEGREE)));
}

const BANDS = [0.282095, 0.488603, 1.092548, 0.315392, 0.546274];

export function harmonics([x, y, z]) {
  const [c0, c1, c2, c3, c4] = BANDS;
  return [c0, c1 * y, c1 * z, c1 * x, c2 * x * y, c2 * y * z, c3 * (3 * z * z - 1), c2 * x * z, c4 * (x * x - y * y)];
}

/** Turns a function given by nine harmonics by a rotation: band 1 is a vector, band 2 a symmetric matrix without trace. */
export function turnHarmonics(h, rotation) {
  const [, , c2, c3, c4] = BANDS;
  const [x, y, z] = apply(rotation, [h[3], h[1], h[2]]);
  const [xy, yz, xz] = [(c2 * h[4]) / 2, (c2 * h[5]) / 2, (c2 * h[7]) / 2];
  const form = [c4 * h[8] - c3 * h[6], xy, xz, xy, -c4 * h[8] - c3 * h[6], yz, xz, yz, 2 * c3 * h[6]];
  const m = multiply(rotation, multiply(form, transpose(rotation)));
  return [h[0], y, z, x, (2 * m[1]) / c2, (2 * m[5]) / c2, m[8] / (2 * c3), (2 * m[2]) / c2, (m[0] - m[4]) / (2 * c4)];
}
