// Folds the advanced inputs of DynamicFace's nodes.
import { app } from "../../scripts/app.js";
import { fold } from "./fold.mjs";

app.registerExtension({
  name: "dynamicface.AdvancedInputs",
  nodeCreated(node) {
    if (node.comfyClass?.startsWith("DynamicFace_")) fold(node);
  },
});
