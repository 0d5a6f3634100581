// Folds the advanced inputs of DynamicFace's nodes in the classic renderer, which shows them all unless told to by an extension: a right
// click > Show Advanced unfolds them. (Nodes 2.0 folds them by itself, under "Show advanced inputs".)
import { app } from "../../scripts/app.js";

const ROW = 20; // height of a slider, LiteGraph.NODE_WIDGET_HEIGHT
const GAP = 4; // the layout adds it to every widget

function fold(node, widget) {
  widget.advanced = true;
  widget.computeSize = (width) => (node.showAdvanced ? [width, ROW] : [0, -GAP]);
}

app.registerExtension({
  name: "dynamicface.AdvancedInputs",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("DynamicFace_")) return;
    const folded = (node.widgets ?? []).filter((widget) => widget.options?.advanced);
    if (!folded.length) return;
    folded.forEach((widget) => fold(node, widget));
    node.setSize(node.computeSize());
  },
});
