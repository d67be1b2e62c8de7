// The live loss curve as SVG: training loss with its average, held-out loss, saves. Crisp at every zoom.

import { say } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
export const COLORS = { raw: "#5b86d6", average: "#6ea8ff", heldOut: "#ffa04d", save: "#45c08a" };

function shape(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent?.append(element);
  return element;
}

/** Round numbers, 1, 2 or 5 times a power of ten apart, from low to high. */
export function ticks(low, high, about) {
  const rough = (high - low) / Math.max(1, about);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return found;
}

/** Values to show: all smooth ones, and the noisy ones without the outermost 2 % at either end. */
export function range(noisy, smooth) {
  const ordered = [...noisy].sort((a, b) => a - b);
  const cut = Math.floor(ordered.length / 50);
  const shown = [...ordered.slice(cut, ordered.length - cut), ...smooth];
  const low = Math.min(...shown), high = Math.max(...shown);
  const pad = (high - low) * 0.1 || Math.abs(high) * 0.1 || 1;
  return [low >= 0 ? Math.max(0, low - pad) : low - pad, high + pad];
}

function spelled(value, all) {
  const step = all.length > 1 ? all[1] - all[0] : Math.abs(value) || 1;
  return value.toFixed(Math.min(6, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))));
}

class Panel {
  constructor(svg, box, steps, values) {
    Object.assign(this, { svg, box, steps, values });
  }

  x(step) {
    const [left, , right] = this.box;
    return left + ((step - this.steps[0]) / (this.steps[1] - this.steps[0] || 1)) * (right - left);
  }

  y(value) {
    const [, top, , bottom] = this.box, [low, high] = this.values;
    const share = Math.min(1, Math.max(0, (value - low) / (high - low)));
    return bottom - share * (bottom - top);
  }

  frame(title, color) {
    const [left, top, right, bottom] = this.box;
    const text = shape("text", { x: left, y: top - 12, class: "ll-name" }, this.svg);
    text.textContent = title;
    shape("rect", { x: left - 10, y: top - 18, width: 6, height: 6, rx: 1.5, fill: color }, this.svg);
    const levels = ticks(...this.values, 4);
    for (const value of levels) {
      const y = this.y(value);
      shape("line", { x1: left, x2: right, y1: y, y2: y, class: "ll-grid" }, this.svg);
      shape("text", { x: left - 5, y: y + 3, class: "ll-tick", "text-anchor": "end" }, this.svg).textContent = spelled(value, levels);
    }
    for (const step of ticks(...this.steps, Math.max(2, (right - left) / 70)).filter(Number.isInteger)) {
      shape("text", { x: this.x(step), y: bottom + 12, class: "ll-tick", "text-anchor": "middle" }, this.svg).textContent = step;
    }
    shape("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "ll-axis" }, this.svg);
  }

  line(points, attributes) {
    if (points.length === 1) return this.dots(points, attributes.stroke);
    const places = points.map(([step, value]) => `${this.x(step).toFixed(1)},${this.y(value).toFixed(1)}`);
    shape("polyline", { points: places.join(" "), fill: "none", "stroke-linejoin": "round", ...attributes }, this.svg);
  }

  dots(points, color) {
    for (const [step, value] of points) {
      const dot = shape("circle", { cx: this.x(step), cy: this.y(value), r: 2.6, fill: color }, this.svg);
      shape("title", {}, dot).textContent = `step ${step}: ${value.toPrecision(4)}`;
    }
  }

  label([step, value], color) {
    const right = this.x(step) > this.box[2] - 40;
    const text = shape("text", {
      x: this.x(step) + (right ? -6 : 6), y: Math.max(this.box[1] + 9, this.y(value) - 6),
      "text-anchor": right ? "end" : "start", class: "ll-value", fill: color,
    }, this.svg);
    text.textContent = value.toPrecision(3);
  }

  saves(steps) {
    const [, top, , bottom] = this.box;
    for (const step of new Set(steps)) {
      const x = this.x(step);
      shape("line", { x1: x, x2: x, y1: top, y2: bottom, stroke: COLORS.save, "stroke-dasharray": "2 3", opacity: 0.8 }, this.svg);
      const flag = shape("path", { d: `M${x} ${top} l-4 -6 h8 z`, fill: COLORS.save }, this.svg);
      shape("title", {}, flag).textContent = `saved at step ${step}`;
    }
  }
}

const finite = (points) => points.filter(([, value]) => Number.isFinite(value));

/** Draw a job's curves into an SVG of width x height. `state`: losses [step, loss, average], held_out [step, loss]. */
export function draw(svg, state, width, height) {
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const raw = finite(state.losses.map(([step, loss]) => [step, loss]));
  const average = finite(state.losses.map(([step, , mean]) => [step, mean]));
  const heldOut = finite(state.held_out);
  if (!raw.length && !average.length && !heldOut.length) {
    const text = shape("text", { x: width / 2, y: height / 2 + 3, class: "ll-tick", "text-anchor": "middle" }, svg);
    const missing = state.over ? "No steps" : state.id ? "The curve begins with the first step" : "The curve and previews appear here";
    text.textContent = say(missing);
    return;
  }
  const last = Math.max(1, state.steps?.[1] ?? 0, ...[...raw, ...average, ...heldOut].map(([step]) => step));
  const saves = state.marks.filter((mark) => mark.kind === "lora").map((mark) => mark.step);
  const trained = raw.length + average.length > 0;
  const split = trained && heldOut.length ? Math.round(width * 0.6) : trained ? width : 0;
  if (trained) {
    const values = range(raw.map((p) => p[1]), average.map((p) => p[1]));
    const panel = new Panel(svg, [44, 30, split - 10, height - 18], [0, last], values);
    panel.frame(say("Training loss"), COLORS.average);
    panel.line(raw, { stroke: COLORS.raw, "stroke-width": 1, opacity: 0.45 });
    panel.saves(saves);
    panel.line(average, { stroke: COLORS.average, "stroke-width": 2 });
    if (average.length) panel.label(average.at(-1), COLORS.average);
  }
  if (heldOut.length) {
    const panel = new Panel(svg, [split + 44, 30, width - 10, height - 18], [0, last], range([], heldOut.map((p) => p[1])));
    panel.frame(say("Held-out loss"), COLORS.heldOut);
    panel.saves(saves);
    panel.line(heldOut, { stroke: COLORS.heldOut, "stroke-width": 2 });
    panel.dots(heldOut, COLORS.heldOut);
    panel.label(heldOut.at(-1), COLORS.heldOut);
  }
}
