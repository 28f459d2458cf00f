// A canvas to draw on with mouse, finger, pen or keyboard. It keeps strokes with their times.

import { h, id } from "./dom.js";
import { SIZE, replayTimes } from "./strokes.js";

const STEP = 6; // units that the crosshair moves; with Shift five times as many
const EVERY = 6; // points after which a change is told while a stroke is drawn
const round = (value) => Math.round(10 * Math.min(Math.max(value, 0), SIZE)) / 10;
const still = window.matchMedia("(prefers-reduced-motion: reduce)");
const dark = window.matchMedia("(prefers-color-scheme: dark)");

/**
 * @param changed called with whether a stroke has ended.
 * @param say tells a screen reader.
 */
export class Pad {
  strokes = [];
  weights = null; // of the strokes, -1 to 1, where it is known which decided

  constructor({ changed, say, label = "Drawing area", placeholder = "Draw something here" }) {
    Object.assign(this, { changed, say, label });
    this.start = null; // time of the first point
    this.pointer = null;
    this.cursor = null; // of the keyboard: {x, y, down}
    this.replaying = 0;
    const hint = id("hint");
    this.canvas = h("canvas", {
      class: "pad", tabindex: "0", role: "application", "aria-label": label,
      "aria-roledescription": "canvas", "aria-describedby": hint,
    });
    this.hint = h("p", { class: "muted small", id: hint },
      "Mouse, finger or pen. By keyboard: arrows move a crosshair (with Shift in larger steps), Space lowers and lifts the pen, Backspace undoes.");
    this.placeholder = h("p", { class: "pad-placeholder", "aria-hidden": "true" }, placeholder);
    this.element = h("div", { class: "pad-frame" }, this.canvas, this.placeholder);
    this.#listen();
    new ResizeObserver(() => this.paint()).observe(this.canvas);
    dark.addEventListener("change", () => this.paint());
  }

  // Strokes

  #time(stamp) {
    this.start ??= stamp;
    return Math.max(0, Math.round(stamp - this.start));
  }

  #begin(x, y, stamp) {
    this.stopReplay();
    this.weights = null;
    this.strokes.push([[round(x)], [round(y)], [this.#time(stamp)]]);
    this.added = 0;
    this.paint();
  }

  #add(x, y, stamp) {
    const [xs, ys, times] = this.strokes.at(-1);
    [x, y] = [round(x), round(y)];
    if (x === xs.at(-1) && y === ys.at(-1)) return;
    xs.push(x);
    ys.push(y);
    times.push(Math.max(this.#time(stamp), times.at(-1)));
    if (++this.added % EVERY === 0) this.changed(false);
  }

  undo() {
    this.#lift();
    this.pointer = null;
    this.stopReplay();
    if (!this.strokes.length) return;
    this.strokes.pop();
    this.weights = null;
    if (!this.strokes.length) this.start = null;
    this.paint();
    this.changed(true);
    this.say(`Removed a stroke; ${this.strokes.length} left.`);
  }

  clear() {
    this.#lift();
    this.pointer = null;
    this.stopReplay();
    this.strokes = [];
    this.weights = null;
    this.start = null;
    this.paint();
    this.changed(true);
    this.say("The drawing is empty.");
  }

  // Pointers and keys

  #listen() {
    const { canvas } = this;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) * SIZE) / box.width, ((event.clientY - box.top) * SIZE) / box.height];
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (this.pointer !== null || event.button !== 0) return;
      this.#lift();
      this.cursor = null;
      this.pointer = event.pointerId;
      canvas.setPointerCapture(event.pointerId);
      this.#begin(...place(event), event.timeStamp);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== this.pointer) return;
      const all = event.getCoalescedEvents?.() ?? [];
      for (const each of all.length ? all : [event]) this.#add(...place(each), each.timeStamp);
      this.paint();
    });
    const end = (event) => {
      if (event.pointerId !== this.pointer) return;
      this.pointer = null;
      this.paint();
      this.changed(true);
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("focus", () => {
      if (!canvas.matches(":focus-visible")) return; // the mouse brought the focus
      this.#showCursor();
      this.paint();
    });
    canvas.addEventListener("blur", () => {
      this.#lift();
      this.cursor = null;
      this.paint();
    });
  }

  #showCursor() {
    this.cursor ??= { x: SIZE / 2, y: SIZE / 2, down: false };
  }

  #key(event) {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) {
      if (event.key !== "z") return;
      event.preventDefault();
      this.undo();
    } else if (move) {
      event.preventDefault();
      this.#showCursor();
      const step = event.shiftKey ? 5 * STEP : STEP;
      this.cursor.x = round(this.cursor.x + step * move[0]);
      this.cursor.y = round(this.cursor.y + step * move[1]);
      if (this.cursor.down) this.#add(this.cursor.x, this.cursor.y, event.timeStamp);
      this.paint();
    } else if (event.key === " ") {
      event.preventDefault();
      this.#showCursor();
      const { x, y, down } = this.cursor;
      if (down) this.#lift();
      else {
        this.cursor.down = true;
        this.#begin(x, y, event.timeStamp);
        this.say(`Pen down at ${Math.round(x)}, ${Math.round(y)} of ${SIZE}.`);
      }
    } else if (event.key === "Backspace" || event.key === "Delete") {
      event.preventDefault();
      this.undo();
    } else if (event.key === "Escape") this.#lift();
  }

  #lift() {
    if (!this.cursor?.down) return;
    this.cursor.down = false;
    this.say(`Pen up at ${Math.round(this.cursor.x)}, ${Math.round(this.cursor.y)}.`);
    this.paint();
    this.changed(true);
  }

  // Pictures

  replay() {
    this.stopReplay();
    const times = replayTimes(this.strokes);
    const ends = times.map((row) => row.at(-1));
    const total = ends.at(-1) ?? 0;
    const begin = performance.now();
    const frame = () => {
      let clock = performance.now() - begin;
      if (clock >= total) return this.stopReplay();
      if (still.matches) clock = Math.max(-1, ...ends.filter((end) => end <= clock)); // by whole strokes
      this.paint(times, clock);
      this.replaying = requestAnimationFrame(frame);
    };
    if (this.strokes.length) this.replaying = requestAnimationFrame(frame);
  }

  stopReplay() {
    if (!this.replaying) return;
    cancelAnimationFrame(this.replaying);
    this.replaying = 0;
    this.paint();
  }

  /** Draw all strokes, or those points whose time of a replay has come. */
  paint(times = null, clock = 0) {
    const { canvas } = this;
    const width = canvas.clientWidth;
    if (!width) return;
    const scale = (window.devicePixelRatio || 1) * (width / SIZE);
    const pixels = Math.round(scale * SIZE);
    if (canvas.width !== pixels) canvas.width = canvas.height = pixels;
    const colour = (name) => getComputedStyle(canvas).getPropertyValue(name).trim();
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, SIZE, SIZE);
    context.lineCap = context.lineJoin = "round";
    const weights = times ? null : this.weights;
    this.strokes.forEach(([xs, ys], index) => {
      const weight = weights?.[index];
      context.lineWidth = weights ? 3 + 9 * Math.abs(weight) : 5;
      context.strokeStyle = !weights
        ? colour("--ink")
        : Math.abs(weight) < 0.05 ? colour("--neutral") : colour(weight > 0 ? "--for" : "--against");
      context.setLineDash(weights && weight < -0.05 ? [1, context.lineWidth * 1.7] : []);
      context.beginPath();
      xs.forEach((x, i) => {
        if (times && times[index][i] > clock) return;
        if (i === 0) context.moveTo(x, ys[0]);
        context.lineTo(x + (i === 0 ? 0.01 : 0), ys[i]);
      });
      context.stroke();
    });
    context.setLineDash([]);
    if (this.cursor) this.#paintCursor(context, colour);
    this.placeholder.hidden = this.strokes.length > 0 || this.cursor !== null;
  }

  #paintCursor(context, colour) {
    const { x, y, down } = this.cursor;
    context.strokeStyle = context.fillStyle = colour("--accent");
    context.lineWidth = 2;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 6 * dx, y + 6 * dy);
      context.lineTo(x + 18 * dx, y + 18 * dy);
    }
    context.stroke();
    context.beginPath();
    context.arc(x, y, 4, 0, 7);
    if (down) context.fill();
    else context.stroke();
  }
}
