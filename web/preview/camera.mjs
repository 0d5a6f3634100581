// The picture's frame: the middle of `render_prior`'s crop (dynamicface/prior/geometry.py), fixed by the filmed pose, and the orbit around it.
import { CLOSER } from "./look.mjs";
import { about, apply, multiply, transpose } from "./math.mjs";

/** Tangents {left, right, bottom, top} of the view's edges, and the point looked at in camera space.  */
export function frameOf(filmed, { crop }, aspect) {
  const centre = apply(filmed.rotation, crop.centre).map((value, k) => value + filmed.translation[k]);
  const depth = -centre[2];
  const half = crop.metres / 2 / depth / CLOSER;
  const [halfX, halfY] = aspect > 1 ? [half * aspect, half] : [half, half / aspect];
  const [x, y] = [centre[0] / depth, centre[1] / depth];
  return { left: x - halfX, right: x + halfX, bottom: y - halfY, top: y + halfY, centre };
}

/** Model to view space as {rotation, translation}: the pose, then the orbit by [yaw, pitch] radians about the frame's centre. */
export function viewOf({ rotation, translation }, { centre }, [yaw, pitch]) {
  const orbit = transpose(multiply(about("y", yaw), about("x", pitch)));
  const arm = apply(orbit, Array.from(translation, (value, k) => value - centre[k]));
  return { rotation: multiply(orbit, rotation), translation: arm.map((value, k) => value + centre[k]) };
}
