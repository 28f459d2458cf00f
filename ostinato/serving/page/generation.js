// What the tabs Finish and Between share: what is asked of a generator, and the drawings it made.

import { h, field, id, percent, s, select, setOptions } from "./dom.js";
import { modelSelect, Note } from "./panel.js";
import { Latest, predict } from "./api.js";
import { SIZE } from "./strokes.js";

const STROKE_S = 0.35; // of the replay, for each stroke

/** Model, class, temperature and number; `changed` is called when one of them changes. */
export class Settings {
  constructor({ numbers, number, changed }) {
    this.changed = changed;
    this.choice = modelSelect("Model", { onchange: () => this.modelChanged() });
    this.category = select([], { onchange: changed });
    this.classField = field("Class", this.category);
    this.readout = h("output", {});
    this.slider = h("input", {
      type: "range", min: "0.05", max: "1.5", step: "0.05", onchange: changed, oninput: () => this.showTemperature(),
    });
    this.number = select(numbers.map((n) => [String(n), String(n)]), { onchange: changed });
    this.number.value = String(number);
    this.renew();
    this.element = h("div", { class: "fields" }, this.choice.element, this.classField,
      field("Temperature", this.slider, this.readout), field("Drawings", this.number));
  }

  get model() {
    return this.choice.model;
  }

  setModels(list) {
    const before = this.version;
    this.choice.set(list);
    this.version = `${this.model.name} ${this.model.version}`;
    if (this.version !== before) this.modelChanged();
  }

  modelChanged() {
    const { classes, temperature } = this.model.reads;
    this.classField.hidden = classes.length === 0;
    setOptions(this.category, classes.map((name) => [name, name]));
    this.slider.value = String(temperature);
    this.showTemperature();
    this.changed();
  }

  showTemperature() {
    const value = Number(this.slider.value);
    this.readout.textContent = `${value.toFixed(2)}, ${value < 0.35 ? "careful" : value < 0.8 ? "free" : "wild"}`;
    this.slider.setAttribute("aria-valuetext", this.readout.textContent);
  }

  /** Another seed: the next answer has other drawings. */
  renew() {
    this.seed = crypto.getRandomValues(new Uint32Array(1))[0];
  }

  /** The fields of an input that these controls give. */
  input() {
    return {
      class: this.category.value || null,
      temperature: Number(this.slider.value),
      count: Number(this.number.value),
      seed: this.seed,
    };
  }
}

/** The drawings of a request: asked for one request at a time, shown side by side. */
export class Gallery {
  /** @param name of the k-th of n drawings; @param waiting text while there are none. */
  constructor({ name, waiting, say }) {
    Object.assign(this, { name, say });
    this.waiting = h("p", { class: "muted" }, waiting);
    this.list = h("ul", { class: "gallery" });
    this.version = h("p", { class: "muted small" });
    this.note = new Note();
    this.replayButton = h("button", { type: "button", onclick: () => this.replay() }, "Replay");
    this.element = h("div", { class: "stack" }, this.list, this.waiting, this.version, this.note.element);
    this.latest = new Latest((asked, current) => this.ask(asked, current));
    this.clear();
  }

  clear() {
    this.latest.drop();
    this.list.replaceChildren();
    this.version.textContent = "";
    this.note.clear();
    this.waiting.hidden = false;
    this.replayButton.disabled = true;
  }

  push(asked) {
    this.latest.push(asked);
  }

  async ask(asked, current) {
    const { model, input, given } = asked;
    this.note.busy("Drawing");
    try {
      const answer = await predict(model.name, [input], {}, { log: false });
      if (!current()) return;
      this.note.clear();
      this.waiting.hidden = true;
      this.show(answer.responses[0].drawings, given);
      this.version.textContent = `${model.name}, version ${answer.version}`;
    } catch (error) {
      if (current()) this.note.error(error, error.status === 422 ? null : () => this.push(asked));
    }
  }

  /** @param given number of strokes that are not the model's. */
  show(drawings, given) {
    const box = boxOf(drawings, given > 0);
    this.list.replaceChildren(...drawings.map((drawing, k) => {
      const title = id("drawing");
      const seen = drawing.label ? `${drawing.label}, ${percent(drawing.probability)}` : "";
      return h("li", {},
        s("svg", { viewBox: box.join(" "), role: "img", "aria-labelledby": title },
          s("title", { id: title }, `${this.name(k, drawings.length)}${seen ? `: ${seen}` : ""}`),
          drawing.strokes.map((stroke, i) => line(stroke, i < given, i - given, box[2]))),
        h("span", { class: "small", "aria-hidden": "true" }, seen || "nothing to see"));
    }));
    this.replayButton.disabled = false;
    const labels = drawings.map((drawing) => drawing.label ?? "nothing").join(", ");
    this.say(`${drawings.length} drawings. The classifier sees: ${labels}.`);
  }

  replay() {
    for (const path of this.list.querySelectorAll("path:not(.given)")) {
      for (const animation of path.getAnimations()) {
        animation.cancel();
        animation.play();
      }
    }
  }
}

/** The square that all drawings lie in, with a margin: for completions, at least the pad. */
function boxOf(drawings, onPad) {
  const all = (axis) => drawings.flatMap((drawing) => drawing.strokes.flatMap((stroke) => stroke[axis]));
  const range = onPad ? [0, SIZE] : [0, 255];
  const [left, right] = [Math.min(range[0], ...all(0)), Math.max(range[1], ...all(0))];
  const [top, bottom] = [Math.min(range[0], ...all(1)), Math.max(range[1], ...all(1))];
  const side = Math.max(right - left, bottom - top);
  const margin = 0.05 * side;
  return [left - (side - right + left) / 2 - margin, top - (side - bottom + top) / 2 - margin,
    side + 2 * margin, side + 2 * margin];
}

function line([xs, ys], given, index, size) {
  const path = s("path", {
    d: xs.map((x, i) => `${i ? "L" : "M"}${x} ${ys[i]}`).join("") + (xs.length === 1 ? "h0.01" : ""),
    class: given ? "given" : "made",
    pathLength: "1",
    "stroke-width": String(size / 70),
  });
  if (!given) {
    path.style.animationDuration = `${STROKE_S}s`;
    path.style.animationDelay = `${STROKE_S * index}s`;
  }
  return path;
}
