// Advanced inputs, folded away until asked for. Newer frontends do it by themselves in Nodes 2.0; the classic renderer and early Nodes 2.0
// show them all unless told to.

const ROW = 20; // height of a slider, LiteGraph.NODE_WIDGET_HEIGHT
const GAP = 4; // the layout adds it to every widget
const FOLDS_ITSELF = [1, 37]; // first frontend whose Nodes 2.0 does

function foldsItself() {
  const [major, minor] = (window.__COMFYUI_FRONTEND_VERSION__ ?? "").split(".").map(Number);
  return major > FOLDS_ITSELF[0] || (major === FOLDS_ITSELF[0] && minor >= FOLDS_ITSELF[1]);
}

export function advancedWidgets(node) {
  return (node.widgets ?? []).filter((widget) => widget.options?.advanced);
}

/** Folds a new node's advanced inputs in the classic renderer: a right click > Show Advanced unfolds them. */
export function fold(node) {
  const widgets = advancedWidgets(node);
  for (const widget of widgets) {
    widget.advanced = true;
    widget.computeSize = (width) => (node.showAdvanced ? [width, ROW] : [0, -GAP]);
  }
  if (widgets.length) node.setSize(node.computeSize());
}

/** Shows or hides them in either renderer. */
export function showAdvanced(node, shown) {
  node.showAdvanced = shown;
  if (!foldsItself()) {
    for (const widget of advancedWidgets(node)) widget.options.hidden = !shown;
    node.widgets = [...node.widgets]; // what Nodes 2.0 watches
  }
  node.setSize([node.size[0], node.computeSize()[1]]);
  node.setDirtyCanvas(true, true);
}
