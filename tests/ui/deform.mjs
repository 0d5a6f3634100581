// node deform.mjs PREVIEW CASES: what the preview makes of edits. CASES is JSON, a list of [[node id, values], ..]; prints one object a case.
import { readFileSync } from "node:fs";
import { EDITS } from "../../web/preview/edits.mjs";
import { Head } from "../../web/preview/head.mjs";
import { apply } from "../../web/preview/math.mjs";
import { filmedFactors, readPayload } from "../../web/preview/payload.mjs";

const [preview, cases] = process.argv.slice(2);
const bytes = readFileSync(preview);
const payload = readPayload(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const head = new Head(payload);
const results = JSON.parse(readFileSync(cases, "utf8")).map((edits) => {
  const factors = edits.reduce((face, [node, values]) => EDITS[node](face, values, payload), filmedFactors(payload));
  const started = performance.now();
  head.deform(factors);
  const milliseconds = performance.now() - started;
  const camera = [];
  for (let v = 0; v < head.count; v++) {
    const point = apply(factors.rotation, head.vertices.subarray(v * 3, v * 3 + 3));
    camera.push(point.map((value, k) => value + factors.translation[k]));
  }
  return { camera, illumination: Array.from(factors.illumination), milliseconds };
});
process.stdout.write(JSON.stringify(results));
