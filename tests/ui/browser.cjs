// node browser.cjs JOB: drives ComfyUI's own frontend in headless Chromium and prints what it saw as JSON.
// JOB is a JSON file: {address, chromium, folder, workflows: {name: UI workflow}}. The assertions are in test_browser.py.
const { readFileSync } = require("node:fs");
const { join } = require("node:path");
const { chromium } = require("playwright-core");

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
const FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run"];
const WINDOW = { width: 1280, height: 900 };
const QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync"];
// What frontends say about any workflow: files of the user they have not written yet, their own online node database, their own old parts.
// The last two: this test asks for the graph early and reads canvases back.
const NOISE = [
  /Failed to load resource/,
  /api\.comfy\.org/,
  /reading 'id'\)\s+at onChange/,
  /(history menu|maskeditor|input\.link) is deprecated/,
  /Invalid layout total size/,
  /graph accessed before initialization/,
  /willReadFrequently/,
];

const settings = (values) => fetch(`${job.address}/api/settings`, { method: "POST", body: JSON.stringify(values) });

async function open(page) {
  await page.goto(job.address, { waitUntil: "domcontentloaded" });
  await page.waitForFunction(() => window.app?.graph && window.LiteGraph?.registered_node_types.DynamicFace_EditExpression, { timeout: 180000 });
  await page.waitForTimeout(1500);
}

async function load(page, workflow) {
  await page.evaluate((graph) => window.app.loadGraphData(graph), workflow);
  await page.waitForTimeout(700);
}

/** The whole graph in the window, as a picture, and which nodes lie over each other. */
async function look(page, name) {
  await page.setViewportSize({ width: 2800, height: 1500 });
  const overlaps = await page.evaluate(() => {
    const { canvas, graph } = window.app;
    const boxes = graph.nodes.map((node) => [node.title, node.pos[0], node.pos[1] - 30, node.size[0], node.size[1] + 30]);
    const [left, top] = [1, 2].map((k) => Math.min(...boxes.map((box) => box[k])));
    const [right, bottom] = [1, 2].map((k) => Math.max(...boxes.map((box) => box[k] + box[k + 2])));
    canvas.ds.scale = Math.min((window.innerWidth - 160) / (right - left), (window.innerHeight - 200) / (bottom - top), 1);
    canvas.ds.offset = [100 / canvas.ds.scale - left, 120 / canvas.ds.scale - top];
    canvas.setDirty(true, true);
    const apart = (a, b) => a[1] + a[3] <= b[1] || b[1] + b[3] <= a[1] || a[2] + a[4] <= b[2] || b[2] + b[4] <= a[2];
    return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => !apart(a, b)).map((b) => `${a[0]} / ${b[0]}`));
  });
  await page.waitForTimeout(600);
  await page.screenshot({ path: join(job.folder, `workflow_${name}.png`) });
  await page.setViewportSize(WINDOW);
  return overlaps;
}

/** API prompt as opened, and again after storing and reopening it; what popped up. */
async function inspect(page, name, workflow) {
  await load(page, workflow);
  const overlaps = await look(page, name);
  const first = await page.evaluate(() => window.app.graphToPrompt());
  await load(page, first.workflow);
  const second = await page.evaluate(async () => (await window.app.graphToPrompt()).output);
  const popups = await page.locator(".p-dialog:visible, .p-toast-message:visible").allInnerTexts();
  return { first: first.output, second, popups, overlaps };
}

async function queue(page) {
  await page.evaluate(async () => {
    const { api } = window.app;
    const done = new Promise((resolve, reject) => {
      api.addEventListener("execution_success", resolve, { once: true });
      api.addEventListener("execution_error", (event) => reject(new Error(event.detail.exception_message)), { once: true });
    });
    await window.app.queuePrompt(0);
    await done;
  });
  await page.waitForTimeout(1500);
}

const find = (page, type) => page.evaluate((kind) => window.app.graph.nodes.find((node) => node.type === kind).id, type);

/** Moves a node to the upper left of the window. */
async function show(page, id, scale = 1) {
  await page.evaluate(
    ([node, zoom]) => {
      const { ds } = window.app.canvas;
      const { pos } = window.app.graph.getNodeById(node);
      ds.scale = zoom;
      ds.offset = [110 / zoom - pos[0], 120 / zoom - pos[1]];
      window.app.canvas.setDirty(true, true);
    },
    [id, scale],
  );
  await page.waitForTimeout(800);
}

/** The preview's pixels, for a comparison in the page. */
const remember = (page, name) =>
  page.evaluate((key) => {
    const canvas = document.querySelector(".dynamicface-preview canvas");
    (document.dynamicfaceTest ??= {})[key] = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  }, name);

/** Share of the bytes that differ by more than 8. */
const difference = (page, a, b) =>
  page.evaluate(
    ([x, y]) => {
      const [one, two] = [document.dynamicfaceTest[x], document.dynamicfaceTest[y]];
      return one.length === two.length ? one.reduce((sum, value, i) => sum + (Math.abs(value - two[i]) > 8), 0) / one.length : 1;
    },
    [a, b],
  );

/** Drags a slider of the classic renderer with the mouse to a share of its width. */
async function drag(page, id, name, share) {
  const [from, to] = await page.evaluate(
    ([node, widgetName, target]) => {
      const { canvas, graph } = window.app;
      const owner = graph.getNodeById(node);
      const widget = owner.widgets.find((one) => one.name === widgetName);
      const place = (x) => {
        const [left, top] = canvas.ds.convertOffsetToCanvas([owner.pos[0] + 15 + x * (owner.size[0] - 30), owner.pos[1] + widget.last_y + 10]);
        const box = canvas.canvas.getBoundingClientRect();
        return [box.left + left, box.top + top];
      };
      return [place(0.5), place(target)];
    },
    [id, name, share],
  );
  await page.mouse.move(...from);
  await page.mouse.down();
  await page.mouse.move(...to, { steps: 4 });
  await page.mouse.up();
  await page.waitForTimeout(1200);
  return page.evaluate(([node, widgetName]) => window.app.graph.getNodeById(node).widgets.find((one) => one.name === widgetName).value, [id, name]);
}

const press = async (page, action) => {
  await page.locator(`.dynamicface-preview button[data-action=${action}]`).first().click();
  await page.waitForTimeout(900);
};

/** Queue, drag, look, press every button, queue again. */
async function preview(page, name, folder) {
  const report = {};
  await load(page, job.workflows[name]);
  const [edit, saved] = [await find(page, "DynamicFace_EditExpression"), await find(page, "SaveImage")];
  await queue(page);
  const picture = () => page.evaluate((id) => JSON.stringify(window.app.nodeOutputs[id].images), saved);
  const before = await picture();
  await show(page, edit);
  await remember(page, "run");
  report.dragged = await drag(page, edit, "smile", 0.02);
  await remember(page, "dragged");
  report.followsDial = await difference(page, "run", "dragged");
  await press(page, "before");
  await remember(page, "before");
  report.before = await difference(page, "dragged", "before");
  await press(page, "before");
  await remember(page, "after");
  report.backAgain = await difference(page, "dragged", "after");
  await press(page, "wireframe");
  await remember(page, "wireframe");
  report.wireframe = await difference(page, "after", "wireframe");
  await press(page, "wireframe");
  const box = await page.locator(".dynamicface-preview canvas").first().boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width / 2 + 60, box.y + box.height / 2, { steps: 4 });
  await page.mouse.up();
  await page.waitForTimeout(900);
  await remember(page, "orbit");
  report.orbit = await difference(page, "after", "orbit");
  await page.locator(".dynamicface-preview button[data-action=view]").first().press("Enter"); // by keyboard alone
  await page.waitForTimeout(900);
  await remember(page, "front");
  report.front = await difference(page, "after", "front");
  const place = await page.evaluate((id) => JSON.stringify(window.app.graph.getNodeById(id).pos), edit);
  const stage = page.locator(".dynamicface-preview canvas").first();
  await stage.focus();
  for (const key of ["ArrowRight", "ArrowRight", "ArrowUp"]) await page.keyboard.press(key);
  await page.waitForTimeout(900);
  await remember(page, "keys");
  report.keys = await difference(page, "after", "keys");
  await page.keyboard.press("Home");
  await page.waitForTimeout(900);
  await remember(page, "home");
  report.home = await difference(page, "after", "home");
  report.stayed = place === (await page.evaluate((id) => JSON.stringify(window.app.graph.getNodeById(id).pos), edit));
  await page.screenshot({ path: join(folder, "preview_dragged.png") });
  await press(page, "dials");
  report.reset = await page.evaluate((id) => window.app.graph.getNodeById(id).widgets.find((one) => one.name === "smile").value, edit);
  report.laugh = await drag(page, edit, "laugh", 0.95);
  await queue(page);
  report.newPicture = (await picture()) !== before;
  await show(page, edit, 0.9);
  await page.screenshot({ path: join(folder, "preview_result.png") });
  report.framesPerSecond = await page.evaluate(async (id) => {
    const dial = window.app.graph.getNodeById(id).widgets.find((one) => one.name === "smile");
    const started = performance.now();
    for (let k = 0; k < 20; k++) {
      dial.value = Math.sin(k / 3);
      await new Promise(requestAnimationFrame);
    }
    return 20000 / (performance.now() - started);
  }, edit);
  return report;
}

/** The other renderer and the other language. */
async function nodes2(page, name, folder) {
  await settings({ "Comfy.VueNodes.Enabled": true, "Comfy.Locale": "zh" });
  await open(page);
  await load(page, job.workflows[name]);
  const edit = await find(page, "DynamicFace_EditExpression");
  await show(page, edit);
  await queue(page);
  await remember(page, "run");
  await page.evaluate((id) => (window.app.graph.getNodeById(id).widgets.find((one) => one.name === "jaw_open").value = 0.9), edit);
  await page.waitForTimeout(1500);
  await remember(page, "dragged");
  await page.screenshot({ path: join(folder, "nodes2_zh.png") });
  const names = await page.evaluate(async () => (await window.app.api.fetchApi("/i18n")).json());
  return { followsDial: await difference(page, "run", "dragged"), text: await page.locator("body").innerText(), names: names.zh.nodeDefs.DynamicFace_EditExpression };
}

(async () => {
  await settings({ "Comfy.TutorialCompleted": true, "Comfy.VueNodes.Enabled": false, "Comfy.Locale": "en" });
  const browser = await chromium.launch({ executablePath: job.chromium, headless: true, args: [...FLAGS, ...QUIET] });
  const page = await (await browser.newContext({ viewport: WINDOW })).newPage();
  page.setDefaultTimeout(180000);
  let messages = [];
  const hear = (text) => NOISE.some((pattern) => pattern.test(text)) || messages.push(text.slice(0, 500));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && hear(message.text()));
  page.on("pageerror", (error) => hear(String(error.stack)));
  const outside = [];
  page.on("request", (request) => /^https?:/.test(request.url()) && !request.url().startsWith(job.address) && outside.push(request.url()));
  try {
    await open(page);
    messages = []; // what the frontend says at its start is not about a workflow
    const report = { workflows: {} };
    for (const [name, workflow] of Object.entries(job.workflows)) {
      report.workflows[name] = { ...(await inspect(page, name, workflow)), messages };
      messages = [];
    }
    report.preview = await preview(page, job.edit, job.folder);
    report.nodes2 = await nodes2(page, job.edit, job.folder);
    console.log(JSON.stringify({ ...report, messages, outside }));
  } finally {
    await settings({ "Comfy.VueNodes.Enabled": false, "Comfy.Locale": "en" });
    await browser.close();
  }
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
