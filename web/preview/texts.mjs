// The words on the preview, in the frontend's language; English where there is no translation.

const TEXTS = {
  en: {
    empty: "Queue once: the fitted face appears here and follows the dials, without another run.",
    look: "The fitted face. Drag it or press the arrow keys to look around; Home turns back.",
    failed: "The preview could not be read ({reason}). Queue again.",
    before: ["Before", "Shows the face as filmed while pressed in."],
    wireframe: ["Mesh", "Shows the head model's triangles."],
    view: ["Front", "Turns the view back to the camera. Drag the picture to look around."],
    dials: ["Reset", "Sets every dial of this node to its neutral position."],
    more: ["More", "Shows or hides the advanced inputs, such as ARKit's 52 channels."],
  },
  zh: {
    empty: "先运行一次工作流：拟合出的人脸会显示在这里，之后拖动滑块即时变化，无需再次运行。",
    look: "拟合出的人脸。拖动或按方向键可环绕观察，按 Home 键转回正面。",
    failed: "无法读取预览（{reason}），请重新运行工作流。",
    before: ["原始", "按下时显示拍摄到的原始人脸。"],
    wireframe: ["网格", "显示头部模型的三角网格。"],
    view: ["正视", "视角转回摄影机方向。拖动画面可环绕观察。"],
    dials: ["归零", "将此节点的所有滑块恢复到中性位置。"],
    more: ["更多", "显示或隐藏高级输入，例如 ARKit 的 52 个通道。"],
  },
};

/** locale: "en", "zh", "zh-TW", .. */
export function textsFor(locale) {
  return TEXTS[locale?.split("-")[0]] ?? TEXTS.en;
}
