// What a node's preview shows: the filmed face of the first Edit node in a row of them, edited by each one's dials as they stand now.
import { EDITS } from "./edits.mjs";
import { filmedFactors } from "./payload.mjs";

const ACTIVE = 0; // LiteGraph's mode of a node that is neither muted nor bypassed
const OWN_FACE = "DynamicFace_EditIdentity"; // its steps hold for the very face it was given

/** The nodes from the one whose payload is shown to `node`. payloads: WeakMap of nodes that have run. */
function row(node, payloads) {
  const nodes = [node];
  while (nodes[0].comfyClass !== OWN_FACE) {
    const slot = nodes[0].inputs?.findIndex((input) => input.name === "prior") ?? -1;
    const upstream = slot < 0 ? null : nodes[0].getInputNode(slot);
    if (!upstream || !(upstream.comfyClass in EDITS) || upstream.mode !== ACTIVE || !payloads.has(upstream)) break;
    nodes.unshift(upstream);
  }
  return nodes;
}

function valuesOf(node) {
  return Object.fromEntries((node.widgets ?? []).filter(({ value }) => typeof value === "number").map(({ name, value }) => [name, value]));
}

/** {face, key, filmed(), edited()}: the loaded preview, a text that changes when the result does, and the factors before and after. */
export function previewOf(node, payloads) {
  const nodes = row(node, payloads);
  const face = payloads.get(nodes[0]);
  const steps = nodes.map((one) => [one.comfyClass, valuesOf(one)]);
  const filmed = () => filmedFactors(face.payload);
  const edited = () => steps.reduce((factors, [kind, values]) => EDITS[kind](factors, values, face.payload), filmed());
  return { face, key: face.name + JSON.stringify(steps), filmed, edited };
}
