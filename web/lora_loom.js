// LoRA Loom in ComfyUI's page: the panel of Train LoRA, and texts on the nodes that report.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { TrainPanel, addStyle } from "./panel.js";
import { say, speak } from "./words.js";

const EVENT = "lora_loom";
const TRAIN = "LoraLoomTrain";
const PROPERTY = "lora_loom_job";
const PANEL_HEIGHT = 340, TEXT_HEIGHT = 170, WIDTH = 400;

const ask = (path, options) => api.fetchApi(path, options);
ask.url = (path) => api.apiURL(path);

/** The node of an execution id such as "7", or "3:7" for node 7 in the subgraph of node 3. */
function nodeById(id) {
  let graph = app.graph, node = null;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById?.(Number(part)) ?? graph?.getNodeById?.(part);
    graph = node?.subgraph;
  }
  return node;
}

function trainNodes(graph = app.graph, prefix = "") {
  const found = [];
  for (const node of graph?.nodes ?? graph?._nodes ?? []) {
    if (node.comfyClass === TRAIN || node.type === TRAIN) found.push([`${prefix}${node.id}`, node]);
    if (node.subgraph) found.push(...trainNodes(node.subgraph, `${prefix}${node.id}:`));
  }
  return found;
}

function addPanel(node) {
  if (node.loraLoom) return node.loraLoom;
  const panel = new TrainPanel(ask, () => app.queuePrompt(0));
  const widget = node.addDOMWidget("lora_loom_panel", "lora_loom", panel.root, {
    serialize: false, hideOnZoom: false, getMinHeight: () => PANEL_HEIGHT, getValue: () => "", setValue: () => {},
  });
  widget.serialize = false;
  node.loraLoom = panel;
  node.setSize([Math.max(node.size[0], WIDTH), node.computeSize()[1]]);
  return panel;
}

async function showJob(node, id) {
  const answer = await ask(`/lora_loom/jobs/${id}`);
  if (!answer.ok) return false;
  addPanel(node).show(await answer.json());
  node.properties[PROPERTY] = id;
  return true;
}

/** After a reload: each Train node shows the job that it runs, else the last one that it is known to have run. */
async function showAll() {
  const nodes = trainNodes();
  if (!nodes.length) return;
  const answer = await ask("/lora_loom/jobs");
  if (!answer.ok) return;
  const { jobs } = await answer.json();
  for (const [id, node] of nodes) {
    const running = jobs.filter((job) => job.node === id && !job.over).at(-1);
    const known = running?.id ?? node.properties?.[PROPERTY];
    if (known && jobs.some((job) => job.id === known)) await showJob(node, known);
  }
}

async function hear({ detail }) {
  const node = nodeById(detail.node);
  if (!node || (node.comfyClass ?? node.type) !== TRAIN) return;
  const panel = addPanel(node);
  if (panel.state.id !== detail.job) {
    panel.state.id = detail.job;
    await showJob(node, detail.job);
  }
  if (detail.events) panel.hear(detail.events);
  if (detail.ended || panel.wantsPast) await showJob(node, detail.job);
  app.graph.setDirtyCanvas(true, false);
}

/** Widgets that the declarations call advanced stay hidden until a click on the last line of the node. */
function hideAdvanced(node) {
  const advanced = (node.widgets ?? []).filter((widget) => widget.options?.advanced);
  if (!advanced.length || !("showAdvanced" in node || node.toggleAdvanced)) return;
  const fit = () => {
    for (const widget of advanced) {
      widget.advanced = true;
      if (node.showAdvanced) delete widget.computeSize;
      else widget.computeSize = () => [0, -4];
    }
  };
  fit();
  const label = () => (node.showAdvanced ? `▴ ${say("fewer options")}` : `▾ ${advanced.length} ${say("more options")}`);
  const button = node.addWidget("button", "lora_loom_more", null, () => {
    node.toggleAdvanced();
    fit();
    button.label = label();
    node.setSize([node.size[0], node.computeSize()[1]]);
  }, { serialize: false });
  button.serialize = false;
  button.label = label();
  const configured = node.onConfigure;
  node.onConfigure = function () {
    configured?.apply(this, arguments);
    fit();
    button.label = label();
  };
  node.setSize([node.size[0], node.computeSize()[1]]);
}

/** A training goes on only with the same settings: ComfyUI must not draw a new seed after each run. */
function keepSeed(node) {
  const control = node.widgets?.find((widget) => widget.name === "seed")?.linkedWidgets?.[0];
  if (control) control.value = "fixed";
}

function showText(node, text) {
  if (!node.loraLoomText) {
    node.loraLoomText = Object.assign(document.createElement("pre"), { className: "ll-text" });
    const widget = node.addDOMWidget("lora_loom_text", "lora_loom", node.loraLoomText, {
      serialize: false, hideOnZoom: false, getMinHeight: () => TEXT_HEIGHT, getValue: () => "", setValue: () => {},
    });
    widget.serialize = false;
    node.setSize([Math.max(node.size[0], WIDTH), Math.max(node.size[1], node.computeSize()[1])]);
  }
  node.loraLoomText.textContent = text;
}

app.registerExtension({
  name: "LoraLoom",

  init() {
    speak(app.ui?.settings?.getSettingValue?.("Comfy.Locale"));
  },

  setup() {
    addStyle();
    api.addEventListener(EVENT, (event) => hear(event).catch((fault) => console.error("LoRA Loom:", fault)));
    api.addEventListener("reconnected", () => showAll());
  },

  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("LoraLoom") || nodeData.name === TRAIN) return;
    const before = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output) {
      before?.apply(this, arguments);
      if (output?.text?.length) showText(this, output.text.join("\n"));
    };
  },

  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("LoraLoom")) return;
    hideAdvanced(node);
    if (node.comfyClass !== TRAIN) return;
    keepSeed(node);
    addPanel(node);
  },

  async afterConfigureGraph() {
    await showAll().catch((fault) => console.error("LoRA Loom:", fault));
  },
});
