// The tab Finish: a generator finishes what one began, in several ways.

import { Gallery, Settings } from "./generation.js";
import { h } from "./dom.js";
import { Pad } from "./pad.js";
import { panelOfKind } from "./panel.js";
import { extent, hasInk, SIZE } from "./strokes.js";

const FINISHED = 0.8 * SIZE; // longer side of the finished drawing

export const create = (panel) => panelOfKind(panel, {
  kind: "generation",
  title: "No generator is served",
  what: "Here you begin a drawing, and a model finishes it in several ways.",
  example: "results/generation-sketch-rnn",
}, () => new FinishTab());

class FinishTab {
  constructor() {
    this.live = h("p", { class: "hidden-text", "aria-live": "polite" });
    const say = (text) => (this.live.textContent = text);
    this.pad = new Pad({ changed: (ended) => ended && this.changed(), say, placeholder: "Begin a drawing here" });
    this.gallery = new Gallery({
      name: (k, n) => `Continuation ${k + 1} of ${n}`,
      waiting: "Continuations appear here after each stroke. With an empty pad, \u201cDraw others\u201d shows new drawings.",
      say,
    });
    this.settings = new Settings({ numbers: [1, 2, 4, 6, 9], number: 4, changed: () => this.changed() });
    const button = (text, onclick) => h("button", { type: "button", onclick }, text);
    this.undo = button("Undo", () => this.pad.undo());
    this.empty = button("Clear", () => this.pad.clear());
    this.element = h("div", { class: "split" },
      h("div", { class: "card" }, this.pad.element,
        h("div", { class: "row toolbar" }, this.undo, this.empty), this.pad.hint, this.live),
      h("div", { class: "card" },
        h("h2", {}, "Continuations"), this.settings.element,
        h("div", { class: "row" }, h("button", { type: "button", class: "primary", onclick: () => this.again() }, "Draw others"),
          this.gallery.replayButton),
        h("ul", { class: "legend" }, h("li", { class: "given" }, "your strokes"), h("li", { class: "made" }, "the model's")),
        this.gallery.element));
    this.enable();
  }

  setModels(list) {
    this.settings.setModels(list);
  }

  enable() {
    this.undo.disabled = this.empty.disabled = this.pad.strokes.length === 0;
  }

  changed() {
    this.enable();
    if (hasInk(this.pad.strokes)) this.ask();
    else this.gallery.clear();
  }

  again() {
    this.settings.renew();
    this.ask();
  }

  ask() {
    const { model } = this.settings;
    if (!model) return;
    const strokes = hasInk(this.pad.strokes) ? structuredClone(this.pad.strokes) : null;
    const size = strokes && Math.max(FINISHED, extent(strokes));
    this.gallery.push({ model, input: { ...this.settings.input(), strokes, size }, given: strokes?.length ?? 0 });
  }
}
