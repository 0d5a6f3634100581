// Live preview in the Edit nodes: once a node has run, the fitted face follows its dials in the browser, without another run.
// The node's run leaves a file in ComfyUI's temp folder (dynamicface/preview.py); everything after that happens in web/preview/.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { advancedWidgets, showAdvanced } from "./fold.mjs";
import { previewOf } from "./preview/chain.mjs";
import { EDITS } from "./preview/edits.mjs";
import { Head } from "./preview/head.mjs";
import { Panel } from "./preview/panel.mjs";
import { readPayload } from "./preview/payload.mjs";
import { textsFor } from "./preview/texts.mjs";

const KEY = "dynamicface_preview"; // of the node's ui output
const faces = new WeakMap(); // node -> what it last left: {name, payload, head, view}

/** Loads the file a node left. WebGL where the browser has it, else drawn on the processor. */
async function load({ filename, subfolder, type }) {
  const response = await api.fetchApi(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
  if (!response.ok) throw new Error(response.statusText);
  const payload = readPayload(await response.arrayBuffer());
  const texture = await createImageBitmap(new Blob([payload.tensors.texture], { type: "image/jpeg" }));
  const head = new Head(payload);
  return { name: filename, payload, head, view: await viewOf(head, texture) };
}

async function viewOf(head, texture) {
  try {
    const { WebGLView } = await import("./preview/webgl.mjs");
    return new WebGLView(head, texture);
  } catch (error) {
    console.info("DynamicFace: no WebGL here, the preview is drawn without it.", error);
    const { PictureView } = await import("./preview/picture.mjs");
    return new PictureView(head, texture);
  }
}

/** Puts every dial where it stood when the node was made. */
function resetDials(node, neutral) {
  node.graph?.beforeChange();
  for (const widget of node.widgets) {
    if (!neutral.has(widget) || widget.value === neutral.get(widget)) continue;
    widget.value = neutral.get(widget);
    widget.callback?.(widget.value);
  }
  node.graph?.afterChange();
  node.setDirtyCanvas(true, true);
}

function attach(node) {
  const neutral = new Map(node.widgets.filter(({ value }) => typeof value === "number").map((widget) => [widget, widget.value]));
  const panel = new Panel({
    read: () => (faces.has(node) ? previewOf(node, faces) : null),
    resetDials: () => resetDials(node, neutral),
    showMore: advancedWidgets(node).length ? () => showAdvanced(node, !node.showAdvanced) : null,
    texts: textsFor(app.extensionManager.setting.get("Comfy.Locale")),
  });
  const widget = node.addDOMWidget(KEY, KEY, panel.root, { serialize: false, getMinHeight: () => Panel.height });
  widget.serialize = false; // neither in the prompt nor in the workflow: stored widget values stay as they are

  if (advancedWidgets(node).length) showAdvanced(node, false); // the button unfolds them

  const show = async (output) => {
    const [file] = output?.[KEY] ?? [];
    if (!file || faces.get(node)?.name === file.filename) return;
    try {
      const face = await load(file);
      faces.get(node)?.view.dispose?.();
      faces.set(node, face);
    } catch (error) {
      panel.say(panel.texts.failed.replace("{reason}", error.message));
    }
  };
  const { onExecuted, onRemoved } = node;
  node.onExecuted = function (output) {
    onExecuted?.apply(this, arguments);
    show(output);
  };
  node.onRemoved = function () {
    onRemoved?.apply(this, arguments);
    panel.dispose();
    faces.get(node)?.view.dispose?.();
  };
  requestAnimationFrame(() => show(app.nodeOutputs?.[node.id])); // a workflow that comes back to the foreground has run before
}

app.registerExtension({
  name: "dynamicface.Preview",
  nodeCreated(node) {
    if (node.comfyClass in EDITS) attach(node);
  },
});
