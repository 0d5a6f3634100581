// Reads the preview file of dynamicface/preview.py: a safetensors file (8 bytes length, JSON header, raw tensors).

const ARRAYS = { F32: Float32Array, I32: Int32Array, I16: Int16Array, U8: Uint8Array };

/** @returns {{tensors: Object<string, TypedArray>, shapes: Object<string, number[]>, meta: Object}} row-major arrays; meta: names and constants */
export function readPayload(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = {};
  const shapes = {};
  const { __metadata__: metadata, ...entries } = header;
  for (const [name, { dtype, shape, data_offsets: [start, end] }] of Object.entries(entries)) {
    tensors[name] = new ARRAYS[dtype](buffer.slice(8 + length + start, 8 + length + end));
    shapes[name] = shape;
  }
  const meta = JSON.parse(metadata.preview);
  if (meta.format !== "dynamicface.preview.1") throw new Error(`unknown preview format ${meta.format}`);
  return { tensors, shapes, meta };
}

/** The factors of the filmed face: what the edits change. */
export function filmedFactors({ tensors }) {
  const { expression, gaze, rotation, translation, illumination } = tensors;
  return { expression, gaze, rotation, translation, illumination, identity: null };
}
