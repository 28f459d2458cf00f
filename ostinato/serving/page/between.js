// The tab Between: what lies between two drawings, for a generator with an encoder.

import { Gallery, Settings } from "./generation.js";
import { h } from "./dom.js";
import { Pad } from "./pad.js";
import { panelOfKind } from "./panel.js";
import { hasInk } from "./strokes.js";

export const encodes = (model) => Boolean(model.reads.encoder);

export const create = (panel) => panelOfKind(panel, {
  kind: "generation",
  fits: encodes,
  title: "No generator with an encoder is served",
  what: "Here you make two drawings, and a model shows what lies between them.",
  example: "results/generation-sketch-rnn",
}, () => new BetweenTab());

class BetweenTab {
  constructor() {
    this.live = h("p", { class: "hidden-text", "aria-live": "polite" });
    const say = (text) => (this.live.textContent = text);
    const changed = (ended) => ended && this.changed();
    this.pads = ["First drawing", "Second drawing"].map((label) => new Pad({ changed, say, label, placeholder: label }));
    this.gallery = new Gallery({
      name: (k, n) => `Step ${k + 1} of ${n}`,
      waiting: "Make both drawings: the model draws each again, at the ends, and what lies between.",
      say,
    });
    this.settings = new Settings({ numbers: [5, 6, 7, 8, 9], number: 7, changed: () => this.changed() });
    this.again = h("button", { type: "button", class: "primary", onclick: () => this.others() }, "Draw others");
    const tools = (pad) => h("div", { class: "row toolbar" },
      h("button", { type: "button", "aria-label": `Undo, ${pad.label}`, onclick: () => pad.undo() }, "Undo"),
      h("button", { type: "button", "aria-label": `Clear, ${pad.label}`, onclick: () => pad.clear() }, "Clear"));
    this.element = h("div", { class: "stack" },
      h("div", { class: "split between" }, this.pads.map((pad) =>
        h("div", { class: "card" }, h("h2", {}, pad.label), pad.element, tools(pad), pad.hint))),
      h("div", { class: "card" }, h("h2", {}, "Between them"), this.settings.element,
        h("div", { class: "row" }, this.again, this.gallery.replayButton), this.gallery.element, this.live));
  }

  setModels(list) {
    this.settings.setModels(list);
  }

  others() {
    this.settings.renew();
    this.changed();
  }

  changed() {
    const ready = this.pads.every((pad) => hasInk(pad.strokes));
    this.again.disabled = !ready;
    if (!ready) {
      this.gallery.clear();
      return;
    }
    const [strokes, other] = this.pads.map((pad) => structuredClone(pad.strokes));
    const { model } = this.settings;
    this.gallery.push({ model, input: { ...this.settings.input(), strokes, other }, given: 0 });
  }
}
