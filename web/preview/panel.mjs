// The preview inside a node: a canvas that follows the dials, and its buttons.

const HEIGHT = 260;
const MOST_PIXELS = 720; // side of the canvas
const TURN = 0.008; // radians a pixel of drag
const KEYS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }; // as if dragged that way
const STEP = 0.12; // radians a key
const STEEPEST = 1.2; // radians of pitch

const [RAISED, PRESSED] = ["#2a2a2a", "#3a6ea5"];
const STYLE = {
  root: "display:flex;flex-direction:column;width:100%;height:100%;min-height:240px;box-sizing:border-box;gap:4px;overflow:hidden",
  stage: "position:relative;flex:1;min-height:0;background:#3c3c3c;border-radius:6px;overflow:hidden",
  canvas: "position:absolute;inset:0;width:100%;height:100%;cursor:grab;touch-action:none",
  message:
    "position:absolute;inset:0;display:flex;align-items:center;justify-content:center;padding:12px;text-align:center;color:#c8c8c8;font:12px sans-serif",
  bar: "display:flex;gap:4px;flex:none",
  button: "flex:1;padding:3px 4px;border:1px solid #555;border-radius:4px;color:#ddd;font:11px sans-serif;cursor:pointer",
};

function make(tag, style, parent) {
  const element = document.createElement(tag);
  element.style.cssText = style;
  parent?.append(element);
  return element;
}

export class Panel {
  /**
   * read() gives {face: {head, view}, key, filmed(), edited()} or null before the first run; resetDials() and showMore() are the work of
   * two buttons, without showMore that button is left out.
   */
  constructor({ read, resetDials, showMore, texts }) {
    this.read = read;
    this.texts = texts;
    this.orbit = [0, 0];
    this.options = { before: false, wireframe: false };
    this.root = make("div", STYLE.root);
    this.root.className = "dynamicface-preview";
    this.stage = make("div", STYLE.stage, this.root);
    this.canvas = make("canvas", STYLE.canvas, this.stage);
    Object.assign(this.canvas, { tabIndex: 0, title: texts.look });
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", texts.look);
    this.context = this.canvas.getContext("2d");
    this.message = make("div", STYLE.message, this.stage);
    this.say(texts.empty);
    const bar = make("div", STYLE.bar, this.root);
    this.#toggle(bar, "before");
    this.#toggle(bar, "wireframe");
    this.#button(bar, "view", () => (this.orbit = [0, 0]));
    this.#button(bar, "dials", resetDials);
    if (showMore) this.#button(bar, "more", showMore);
    this.#orbitByMouse();
    this.#orbitByKeys();
    this.frame = requestAnimationFrame(() => this.#tick());
  }

  static height = HEIGHT;

  /** Text over the canvas; "" uncovers it. */
  say(text) {
    this.message.textContent = text;
    this.message.style.display = text ? "flex" : "none";
    this.canvas.style.visibility = text ? "hidden" : "visible";
  }

  dispose() {
    cancelAnimationFrame(this.frame);
  }

  // The dials are compared every frame: whatever moves them (mouse, undo, another renderer, a node upstream) is seen, without a hook.
  #tick() {
    this.frame = requestAnimationFrame(() => this.#tick());
    if (!this.root.isConnected || !this.stage.clientWidth || !this.stage.clientHeight) return;
    const shown = this.read();
    if (!shown) return;
    const size = this.#size();
    const key = [shown.key, size, this.orbit, JSON.stringify(this.options)].join();
    if (key === this.key) return;
    this.key = key;
    this.say("");
    [this.canvas.width, this.canvas.height] = size;
    const { head, view } = shown.face;
    const filmed = shown.filmed();
    const factors = this.options.before ? filmed : shown.edited();
    head.deform(factors);
    view.draw(this.context, factors, filmed, { orbit: this.orbit, wireframe: this.options.wireframe });
  }

  #size() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    const scale = Math.min(window.devicePixelRatio || 1, MOST_PIXELS / Math.max(width, height));
    return [Math.round(width * scale), Math.round(height * scale)];
  }

  #button(bar, name, action) {
    const [label, tip] = this.texts[name];
    const button = make("button", STYLE.button, bar);
    Object.assign(button, { type: "button", textContent: label, title: tip });
    button.dataset.action = name;
    button.style.background = RAISED;
    button.addEventListener("click", action);
    return button;
  }

  #toggle(bar, name) {
    const button = this.#button(bar, name, () => {
      this.options[name] = !this.options[name];
      button.setAttribute("aria-pressed", this.options[name]);
      button.style.background = this.options[name] ? PRESSED : RAISED;
    });
  }

  #orbitByMouse() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.stopPropagation(); // the graph would drag the node
      canvas.setPointerCapture(event.pointerId);
      canvas.focus({ preventScroll: true }); // the arrow keys go on from here
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      this.#turn(-event.movementX * TURN, -event.movementY * TURN);
    });
    canvas.addEventListener("dblclick", () => (this.orbit = [0, 0]));
  }

  #orbitByKeys() {
    this.canvas.addEventListener("keydown", (event) => {
      const way = KEYS[event.key];
      if (!way && event.key !== "Home") return;
      event.stopPropagation(); // the graph would move the node or the view
      event.preventDefault();
      if (way) this.#turn(way[0] * STEP, way[1] * STEP);
      else this.orbit = [0, 0];
    });
  }

  #turn(yaw, pitch) {
    this.orbit = [this.orbit[0] + yaw, Math.min(Math.max(this.orbit[1] + pitch, -STEEPEST), STEEPEST)];
  }
}
