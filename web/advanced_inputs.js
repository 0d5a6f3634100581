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
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("DynamicFace_")) return;
    const created = nodeType.prototype.onNodeCreated;
    nodeType.prototype.onNodeCreated = function () {
      created?.apply(this, arguments);
      const folded = (this.widgets ?? []).filter((widget) => widget.options?.advanced);
      if (!folded.length) return;
      folded.forEach((widget) => fold(this, widget));
      this.setSize(this.computeSize());
    };
  },
});
