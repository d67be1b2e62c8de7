// What a Train node shows of its job: stage and time left, the loss curve, previews, buttons.

import { draw } from "./chart.js";
import { say } from "./words.js";

const STYLE = `
.ll-panel { box-sizing: border-box; width: 100%; height: 100%; padding: 8px 10px; overflow: hidden; display: flex; flex-direction: column;
  gap: 6px; font: 11px/1.35 Inter, system-ui, sans-serif; color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222);
  border: 1px solid var(--border-color, #444); border-radius: 8px; user-select: none; }
.ll-head { display: flex; gap: 6px; align-items: baseline; white-space: nowrap; }
.ll-dot { width: 7px; height: 7px; border-radius: 50%; flex: none; align-self: center; background: var(--descrip-text, #999); }
.ll-panel[data-state=running] .ll-dot { background: #45c08a; animation: ll-pulse 1.6s ease-in-out infinite; }
.ll-panel[data-state=paused] .ll-dot { background: #ffa04d; }
.ll-panel[data-state=done] .ll-dot { background: #6ea8ff; }
.ll-panel[data-state=failed] .ll-dot { background: #f2555a; }
@keyframes ll-pulse { 50% { opacity: .35; } }
.ll-stage { font-weight: 600; overflow: hidden; text-overflow: ellipsis; }
.ll-left { margin-left: auto; color: var(--descrip-text, #999); font-variant-numeric: tabular-nums; }
.ll-bar { height: 3px; border-radius: 2px; background: var(--border-color, #444); overflow: hidden; flex: none; }
.ll-fill { height: 100%; width: 0; background: #6ea8ff; transition: width .3s; }
.ll-panel[data-state=paused] .ll-fill { background: #ffa04d; }
.ll-chart { flex: 1 1 auto; min-height: 110px; width: 100%; display: block; }
.ll-grid { stroke: var(--border-color, #444); stroke-width: .6; opacity: .7; }
.ll-axis { stroke: var(--descrip-text, #999); stroke-width: .8; }
.ll-tick { font: 9px Inter, system-ui, sans-serif; fill: var(--descrip-text, #999); }
.ll-name { font: 600 10px Inter, system-ui, sans-serif; fill: var(--input-text, #ddd); }
.ll-value { font: 600 10px Inter, system-ui, sans-serif; }
.ll-moved { display: flex; align-items: end; gap: 2px; height: 15px; flex: none; color: var(--descrip-text, #999); }
.ll-moved:empty { display: none; }
.ll-moved span { margin-right: 6px; }
.ll-moved i { flex: 1; max-width: 9px; background: #5b86d6; border-radius: 1px 1px 0 0; }
.ll-previews { display: flex; gap: 5px; overflow-x: auto; flex: none; height: 74px; scrollbar-width: thin; }
.ll-previews:empty { display: none; }
.ll-previews figure { margin: 0; position: relative; height: 74px; flex: none; cursor: zoom-in; }
.ll-previews img { height: 100%; border-radius: 5px; display: block; background: #0003; }
.ll-previews figcaption { position: absolute; left: 3px; bottom: 3px; padding: 0 4px; border-radius: 3px; font-size: 9px; background: #000a; color: #fff; }
.ll-note { color: var(--descrip-text, #999); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; flex: none; }
.ll-note:empty { display: none; }
.ll-panel[data-state=failed] .ll-note { color: #f2888b; white-space: normal; max-height: 5.5em; overflow-y: auto; }
.ll-buttons { display: flex; gap: 5px; flex: none; }
.ll-buttons button { flex: 1; padding: 4px 0; font: inherit; color: inherit; cursor: pointer; border-radius: 5px;
  background: var(--comfy-menu-bg, #353535); border: 1px solid var(--border-color, #4e4e4e); }
.ll-buttons button:hover:not(:disabled) { border-color: #6ea8ff; }
.ll-buttons button[data-act=stop]:hover:not(:disabled) { border-color: #f2555a; }
.ll-buttons button.ll-offer { color: #fff; background: #2f6fd6; border-color: #2f6fd6; }
.ll-buttons button:disabled { opacity: .4; cursor: default; }
.ll-zoom { position: fixed; inset: 0; z-index: 10000; background: #000c; display: grid; place-items: center; cursor: zoom-out; }
.ll-zoom img { max-width: 92vw; max-height: 86vh; image-rendering: auto; border-radius: 6px; }
.ll-zoom p { color: #eee; font: 13px system-ui, sans-serif; margin: 8px 0 0; text-align: center; max-width: 80vw; }
.ll-text { box-sizing: border-box; width: 100%; height: 100%; margin: 0; padding: 8px 10px; overflow: auto; white-space: pre-wrap;
  font: 11px/1.4 ui-monospace, monospace; color: var(--input-text, #ddd); background: var(--comfy-input-bg, #222);
  border: 1px solid var(--border-color, #444); border-radius: 8px; user-select: text; }
`;

const STATES = { queued: "Waiting", running: "Training", paused: "Paused", done: "Done", stopped: "Stopped", failed: "Failed",
  interrupted: "Interrupted" };
const KEPT = "The LoRA so far is kept.";
const GO_ON = "Run it again with the same settings to go on.";
const SHOWN = 24;

function element(name, attributes = {}, parent = null) {
  const made = Object.assign(document.createElement(name), attributes);
  parent?.append(made);
  return made;
}

export function addStyle() {
  if (!document.getElementById("lora-loom-style")) {
    element("style", { id: "lora-loom-style", textContent: STYLE }, document.head);
  }
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

const EMPTY = { id: "", state: "", stage: "", losses: [], held_out: [], marks: [], previews: [], notes: [], outputs: [], changes: [], blocks: {}, steps: null,
  error: "", last: 0 };

/** One panel: `show(snapshot)` replaces all, `hear(events)` adds what came since. */
export class TrainPanel {
  /** `ask(path, options)` fetches, `ask.url(path)` names a picture, `queue()` queues the graph again. */
  constructor(ask, queue) {
    this.ask = ask;
    this.queue = queue;
    this.wantsPast = false;
    this.state = { ...EMPTY };
    this.root = element("div", { className: "ll-panel" });
    const head = element("div", { className: "ll-head" }, this.root);
    element("span", { className: "ll-dot" }, head);
    this.stage = element("span", { className: "ll-stage" }, head);
    this.left = element("span", { className: "ll-left" }, head);
    this.fill = element("div", { className: "ll-fill" }, element("div", { className: "ll-bar" }, this.root));
    this.chart = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.chart.setAttribute("class", "ll-chart");
    this.root.append(this.chart);
    this.moved = element("div", { className: "ll-moved" }, this.root);
    this.previews = element("div", { className: "ll-previews" }, this.root);
    this.note = element("div", { className: "ll-note" }, this.root);
    this.buttons = this.makeButtons(element("div", { className: "ll-buttons" }, this.root));
    this.observer = new ResizeObserver(() => this.drawChart());
    this.observer.observe(this.chart);
    this.draw();
  }

  makeButtons(row) {
    const make = (act, label, title) => {
      const button = element("button", { textContent: say(label), title: say(title), onclick: () => this.press(act) }, row);
      button.dataset.act = act;
      return button;
    };
    return {
      save: make("save", "Save now", "Write the LoRA as it is now"),
      sample: make("sample", "Sample now", "Draw the preview prompts now"),
      pause: make("pause", "Pause", "Hold the training after this step, or go on"),
      stop: make("stop", "Stop and keep", "End now; the LoRA so far is kept"),
    };
  }

  async press(act) {
    if (!this.state.id) return;
    if (act === "pause" && this.state.over) return this.queue();
    const command = act === "pause" && this.state.state === "paused" ? "resume" : act;
    const answer = await this.ask(`/lora_loom/jobs/${this.state.id}/${command}`, { method: "POST" });
    const said = await answer.json().catch(() => ({}));
    if (said.error) this.state.notes = [...this.state.notes, { text: said.error }];
    if (said.state) this.state.state = said.state;
    this.draw();
  }

  show(snapshot) {
    this.wantsPast = false;
    this.state = { ...EMPTY, ...snapshot };
    this.previews.replaceChildren();
    this.draw();
  }

  hear(events) {
    for (const event of events) if (event.n > this.state.last) this.take(event);
    this.draw();
  }

  take(event) {
    const s = this.state;
    s.last = event.n;
    if (!s.over && s.state !== "paused") s.state = "running";
    if (event.event === "Stage") Object.assign(s, { stage: event.title, progress: null, seconds_left: null });
    else if (event.event === "Progress") {
      s.progress = event;
      s.seconds_left = event.seconds_left;
      if (event.unit === "step") s.steps = [event.done, event.total];
    } else if (event.event === "Loss") {
      this.wantsPast ||= !s.losses.length && event.step > 1;
      s.losses = [...s.losses.filter(([step]) => step < event.step), [event.step, event.loss, event.average, event.learning_rate]];
      if (event.held_out !== null) s.held_out = [...s.held_out.filter(([step]) => step < event.step), [event.step, event.held_out]];
    } else if (event.event === "Saved") s.marks = [...s.marks, event];
    else if (event.event === "Preview") s.previews = [...s.previews, event];
    else if (event.event === "Note") s.notes = [...s.notes, event];
    else if (event.event === "Change") Object.assign(s, { blocks: event.blocks, changes: [...s.changes, [event.step, event.mean]] });
  }

  end(state, error = "") {
    Object.assign(this.state, { state, error, over: true, seconds_left: null });
    this.draw();
  }

  draw() {
    const s = this.state, over = Boolean(s.over);
    this.root.dataset.state = s.state;
    const preparing = s.progress && s.progress.unit !== "step" ? s.progress : null;
    const trained = [Math.max(s.steps?.[0] ?? 0, s.losses.at(-1)?.[0] ?? 0), s.steps?.[1] ?? 0];
    const [done, total] = preparing ? [preparing.done, preparing.total] : trained;
    const waiting = s.id && s.state !== "queued" ? "Starting the engine" : STATES[s.state] || "Nothing trained yet";
    const stage = over || s.state === "paused" ? STATES[s.state] : s.stage || waiting;
    this.stage.textContent = say(stage) + (total > 1 && s.state !== "failed" ? ` · ${done} / ${total}` : "");
    const average = s.losses.at(-1)?.[2];
    const left = s.seconds_left ? `${duration(s.seconds_left)} ${say("left")}` : "";
    this.left.textContent = [Number.isFinite(average) ? `${say("loss")} ${average.toFixed(4)}` : "", left].filter(Boolean).join(" · ");
    this.fill.style.width = over && s.state === "done" ? "100%" : total ? `${(100 * done) / total}%` : "0";
    this.note.textContent = this.said();
    this.note.title = this.note.textContent;
    this.drawButtons();
    this.drawMoved();
    this.drawPreviews();
    this.drawChart();
  }

  /** How far training has moved each block: |dW| / |W|. */
  drawMoved() {
    const blocks = Object.entries(this.state.blocks), last = this.state.changes.at(-1);
    const most = Math.max(...blocks.map(([, value]) => value), 1e-12), share = (value) => `${+(100 * value).toPrecision(2)} %`;
    this.moved.replaceChildren();
    if (!last || !blocks.length) return;
    element("span", { textContent: `|ΔW| / |W| ${share(last[1])}` }, this.moved);
    for (const [name, value] of blocks) {
      const bar = element("i", { title: `${name.replace("_", " ")}: ${share(value)}` }, this.moved);
      bar.style.height = `${Math.max(2, Math.round((14 * value) / most))}px`;
    }
  }

  /** The line below the previews: what went wrong, how to go on, the last warning, or what was made. */
  said() {
    const s = this.state, warning = s.notes.filter((note) => note.level === "warning").at(-1)?.text;
    const offer = s.over && s.resumable ? [s.state === "stopped" ? say(KEPT) : "", say(GO_ON)].join(" ").trim() : "";
    return [s.error, offer].filter(Boolean).join(" ") || warning || (s.state === "done" ? s.outputs.at(0) ?? "" : "");
  }

  drawButtons() {
    const s = this.state, offers = Boolean(s.over && s.resumable);
    const running = ["running", "paused"].includes(s.state) && !s.over;
    for (const button of Object.values(this.buttons)) button.disabled = !running;
    const pause = this.buttons.pause;
    pause.disabled = !running && !offers;
    pause.classList.toggle("ll-offer", offers);
    pause.textContent = say(offers ? "Go on" : s.state === "paused" ? "Resume" : "Pause");
    pause.title = say(offers ? "Queue it again: it goes on where it ended" : "Hold the training after this step, or go on");
  }

  drawChart() {
    const width = this.chart.clientWidth || 320, height = this.chart.clientHeight || 120;
    draw(this.chart, this.state, width, height);
  }

  drawPreviews() {
    const wanted = this.state.previews.filter((p) => p.file !== null).slice(-SHOWN);
    const there = new Set([...this.previews.children].map((figure) => figure.dataset.file));
    for (const preview of wanted.filter((p) => !there.has(String(p.file)))) {
      const figure = element("figure", { title: preview.prompt });
      figure.dataset.file = preview.file;
      const source = this.ask.url(`/lora_loom/jobs/${this.state.id}/files/${preview.file}`);
      element("img", { src: source, alt: preview.prompt, loading: "lazy" }, figure);
      element("figcaption", { textContent: preview.step ? `${say("step")} ${preview.step}` : say("before") }, figure);
      figure.onclick = () => zoom(source, `${say("step")} ${preview.step} · ${preview.prompt}`);
      this.previews.append(figure);
      this.previews.scrollLeft = this.previews.scrollWidth;
    }
  }
}

function zoom(source, text) {
  const cover = element("div", { className: "ll-zoom", onclick: () => cover.remove() }, document.body);
  const figure = element("div", {}, cover);
  element("img", { src: source }, figure);
  element("p", { textContent: text }, figure);
}
