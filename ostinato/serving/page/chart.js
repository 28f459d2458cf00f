// A chart of lines and bands over time, with axes, and values on hover and by arrow keys.

import { h, number, s } from "./dom.js";

const HEIGHT = 300;
const MARGIN = { top: 12, right: 14, bottom: 28, left: 52 };
const MINUTE = 60_000;
const DAY = 1440 * MINUTE;
const STEPS = [1, 5, 15, 30, 60, 180, 360, 720].map((n) => n * MINUTE).concat([1, 2, 3, 5, 7, 14].map((n) => n * DAY));
const MONTHS = [1, 2, 3, 6, 12, 24, 60, 120, 240];

/** A time as text; times are wall times, kept as milliseconds of UTC. */
export function timeText(ms) {
  const text = new Date(ms).toISOString();
  return text.endsWith("T00:00:00.000Z") ? text.slice(0, 10) : text.slice(0, 16).replace("T", " ");
}

function valueTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((n) => n * power >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

function timeTicks(low, high, count) {
  const rough = (high - low) / count;
  const step = STEPS.find((each) => each >= rough);
  const ticks = [];
  if (step) {
    for (let t = Math.ceil(low / step) * step; t <= high; t += step) ticks.push(t);
    return ticks.map((t) => [t, step < DAY ? timeText(t).slice(5) : timeText(t).slice(2)]);
  }
  const months = MONTHS.find((each) => each * 30.4 * DAY >= rough) ?? 600;
  const start = new Date(low);
  let month = Math.ceil((start.getUTCFullYear() * 12 + start.getUTCMonth()) / months) * months;
  for (; ; month += months) {
    const t = Date.UTC(Math.floor(month / 12), month % 12, 1);
    if (t > high) break;
    if (t >= low) ticks.push([t, months < 12 ? timeText(t).slice(0, 7) : timeText(t).slice(0, 4)]);
  }
  return ticks;
}

export class LineChart {
  constructor(label, height = HEIGHT) {
    this.height = height;
    this.readout = h("p", { class: "readout", "aria-live": "polite" });
    this.svg = s("svg", { class: "chart", tabindex: "0", role: "application", "aria-roledescription": "chart", "aria-label": `${label}. Left and right arrow keys read values.` });
    this.legend = h("ul", { class: "legend" });
    this.element = h("figure", { class: "figure" }, this.legend, this.svg, this.readout);
    this.data = null;
    this.index = null;
    new ResizeObserver(() => this.#paint()).observe(this.svg);
    this.svg.addEventListener("pointermove", (event) => this.#hover(event));
    this.svg.addEventListener("pointerdown", (event) => this.#hover(event));
    this.svg.addEventListener("keydown", (event) => this.#key(event));
  }

  /**
   * @param lines [{name, style, points: [[ms, value]]}]; a value may be null
   * @param bands [{name, style, points: [[ms, low, high]]}]
   * @param marker [ms, text] of a vertical line, or null
   * @param levels [{value, text}] horizontal lines
   */
  update({ lines, bands = [], marker = null, levels = [] }) {
    this.data = { lines, bands, marker, levels };
    this.times = [...new Set([...lines, ...bands].flatMap((each) => each.points.map(([t]) => t)))].sort((a, b) => a - b);
    this.values = new Map(this.times.map((t) => [t, []]));
    for (const { name, points } of lines) {
      for (const [t, v] of points) if (v !== null) this.values.get(t).push(`${name} ${number(v)}`);
    }
    for (const { name, points } of bands) {
      for (const [t, low, high] of points) this.values.get(t).push(`${name} ${number(low)} to ${number(high)}`);
    }
    this.index = null;
    this.readout.textContent = "Point at the chart, or focus it and use the arrow keys, to read values.";
    this.legend.replaceChildren(...[...lines, ...bands].map(({ name, style }) => h("li", { class: style }, name)));
    this.legend.hidden = lines.length + bands.length < 2;
    this.#paint();
  }

  #paint() {
    const width = this.svg.clientWidth;
    if (!this.data || !width || !this.times.length) return;
    const { lines, bands, marker, levels } = this.data;
    const all = [
      ...lines.flatMap((each) => each.points.map(([, v]) => v)),
      ...bands.flatMap((each) => each.points.flatMap(([, low, high]) => [low, high])),
      ...levels.map((each) => each.value),
    ].filter((v) => v !== null);
    let [low, high] = [Math.min(...all), Math.max(...all)];
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    [low, high] = [low - room, high + room];
    const [first, last] = [this.times[0], this.times.at(-1)];
    const inner = { width: width - MARGIN.left - MARGIN.right, height: this.height - MARGIN.top - MARGIN.bottom };
    const x = (t) => MARGIN.left + (last === first ? 0.5 : (t - first) / (last - first)) * inner.width;
    const y = (v) => MARGIN.top + (1 - (v - low) / (high - low)) * inner.height;
    Object.assign(this, { x, y });
    const bottom = this.height - MARGIN.bottom;
    const line = (points) => points.map(([t, v], i) => `${i && points[i - 1][1] !== null ? "L" : "M"}${x(t).toFixed(1)} ${y(v).toFixed(1)}`).join("");
    this.cursor = s("g", { class: "cursor" });
    this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.svg.setAttribute("height", this.height);
    this.svg.replaceChildren(
      s("g", { class: "axis" },
        valueTicks(low, high, this.height > 200 ? 5 : 3).map((v) => [
          s("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(v), y2: y(v) }),
          s("text", { x: MARGIN.left - 8, y: y(v) + 4, "text-anchor": "end" }, number(Number(v.toPrecision(12))))]),
        timeTicks(first, last, Math.max(2, inner.width / 110)).map(([t, text]) =>
          s("text", { x: x(t), y: bottom + 20, "text-anchor": x(t) > width - 50 ? "end" : "middle" }, text))),
      ...levels.map(({ value, text }) => s("g", { class: "level" },
        s("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
        s("text", { x: width - MARGIN.right, y: y(value) - 5, "text-anchor": "end" }, text))),
      ...bands.map(({ style, points }) => s("path", {
        class: `band ${style}`,
        d: `${line(points.map(([t, , v]) => [t, v]))}${line(points.map(([t, v]) => [t, v]).reverse()).replace("M", "L")}Z`,
      })),
      ...(marker ? [s("line", { class: "marker", x1: x(marker[0]), x2: x(marker[0]), y1: MARGIN.top, y2: bottom }),
        s("text", { class: "marker-text", x: x(marker[0]) - 6, y: MARGIN.top + 10, "text-anchor": "end" }, marker[1])] : []),
      ...lines.map(({ style, points }) => {
        const kept = points.map(([t, v], i) => [t, v, i]).filter(([, v]) => v !== null);
        const path = kept.map(([t, v, i], n) => `${n && kept[n - 1][2] === i - 1 ? "L" : "M"}${x(t).toFixed(1)} ${y(v).toFixed(1)}`).join("");
        return s("path", { class: `line ${style}`, d: kept.length === 1 ? `${path}h0.01` : path });
      }),
      this.cursor);
    this.#paintCursor();
  }

  #hover(event) {
    if (!this.times?.length) return;
    const left = event.clientX - this.svg.getBoundingClientRect().left;
    let nearest = 0;
    this.times.forEach((t, i) => {
      if (Math.abs(this.x(t) - left) < Math.abs(this.x(this.times[nearest]) - left)) nearest = i;
    });
    this.#choose(nearest);
  }

  #key(event) {
    if (!this.times?.length) return;
    const last = this.times.length - 1;
    const from = this.index ?? last + 1;
    const index = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last }[event.key];
    if (index === undefined) return;
    event.preventDefault();
    this.#choose(Math.min(Math.max(index, 0), last));
  }

  #choose(index) {
    if (index === this.index) return;
    this.index = index;
    const t = this.times[index];
    this.readout.textContent = `${timeText(t)}: ${this.values.get(t).join("; ")}`;
    this.#paintCursor();
  }

  #paintCursor() {
    if (this.index === null || !this.cursor) return;
    const t = this.times[this.index];
    this.cursor.replaceChildren(
      s("line", { x1: this.x(t), x2: this.x(t), y1: MARGIN.top, y2: this.height - MARGIN.bottom }),
      ...this.data.lines.flatMap(({ style, points }) => points
        .filter(([time, v]) => time === t && v !== null)
        .map(([, v]) => s("circle", { class: style, cx: this.x(t), cy: this.y(v), r: 4 }))));
  }
}
