// The tab Draw: guesses while one draws, which strokes decided, feedback, downloads.

import { feedback, Latest, predict } from "./api.js";
import { details, download, field, h, id, percent, points, showBars } from "./dom.js";
import { modelSelect, Note, panelOfKind } from "./panel.js";
import { Pad } from "./pad.js";
import { countPoints, hasInk, leaveOneOut, toNdjson, toSvg } from "./strokes.js";

export const create = (panel) => panelOfKind(panel, {
  kind: "strokes",
  title: "No model of drawings is served",
  what: "Here you draw, and a model guesses what it is while you do.",
  example: "results/sketches-conv-bilstm",
}, () => new DrawTab());

/** A list of guesses of one model. */
class Guesses {
  constructor(tab, { label, none = null, big = false }) {
    this.tab = tab;
    this.choice = modelSelect(label, { none, onchange: () => this.chosen() });
    this.best = h("p", { class: big ? "best" : "best small-best" });
    this.bars = h("ol", { class: "bars", "aria-label": "Guesses, the most probable first" });
    this.note = new Note();
    this.waiting = h("p", { class: "muted" }, "Guesses appear here while you draw.");
    this.version = h("p", { class: "muted small" });
    this.element = h("div", { class: "guesses" }, this.choice.element, this.best, this.bars, this.version, this.waiting, this.note.element);
    this.latest = new Latest((strokes, current) => this.ask(strokes, current));
    this.clear();
  }

  clear() {
    this.latest.drop();
    this.answer = null;
    this.best.textContent = this.version.textContent = "";
    this.bars.replaceChildren();
    this.note.clear();
    this.waiting.hidden = this.choice.model === null;
  }

  chosen() {
    this.clear();
    this.tab.modelChanged(this);
  }

  push(strokes) {
    if (!this.choice.model) return;
    if (hasInk(strokes)) this.latest.push(strokes);
    else this.clear();
  }

  async ask(strokes, current) {
    const { model } = this.choice;
    this.note.busy("Waiting for a guess");
    try {
      const answer = await predict(model.name, [{ strokes }], { top_k: 5 }, { log: false });
      if (!current()) return;
      const [found] = answer.responses;
      this.note.clear();
      this.waiting.hidden = true;
      this.answer = { ...answer, label: found.label };
      this.best.textContent = found.label;
      this.version.textContent = `version ${answer.version}`;
      const ranked = showBars(this.bars, found.probabilities);
      this.tab.answered(this, ranked);
    } catch (error) {
      if (current()) this.note.error(error, () => this.push(this.tab.snapshot()));
    }
  }
}

class DrawTab {
  constructor() {
    this.live = h("p", { class: "hidden-text", "aria-live": "polite" });
    this.pad = new Pad({ changed: (ended) => this.changed(ended), say: (text) => (this.live.textContent = text) });
    this.main = new Guesses(this, { label: "Model", big: true });
    this.other = new Guesses(this, { label: "Beside it", none: "no other model" });
    this.deciding = new Latest((strokes, current) => this.decide(strokes, current));
    const button = (text, action) => h("button", { type: "button", onclick: action }, text);
    this.buttons = [
      button("Undo", () => this.pad.undo()),
      button("Clear", () => this.pad.clear()),
      button("Replay", () => this.pad.replay()),
    ];
    this.downloads = [
      button("SVG", () => download("drawing.svg", "image/svg+xml", toSvg(this.pad.strokes))),
      button("ndjson", () => this.saveNdjson()),
    ];
    this.buildWhy();
    this.buildFeedback();
    this.element = h("div", { class: "split" },
      h("div", { class: "card" },
        this.pad.element,
        h("div", { class: "row toolbar" }, this.buttons,
          h("span", { class: "grow" }), h("span", { class: "muted small" }, "Download"), this.downloads),
        this.pad.hint, this.live),
      h("div", { class: "stack" },
        h("div", { class: "card" }, h("h2", {}, "Guesses"),
          h("div", { class: "pair" }, this.main.element, this.other.element)),
        this.why, this.teach));
    this.enable();
  }

  setModels(list) {
    this.main.choice.set(list);
    this.known = list;
    this.mainChanged();
    for (const each of [this.main, this.other]) {
      const { model } = each.choice;
      const stale = each.answer && (each.answer.model !== model?.name || each.answer.version !== model.version);
      if (stale) each.chosen();
    }
  }

  /** What depends on the chosen model: the classes, and which others can stand beside it. */
  mainChanged() {
    this.other.choice.set(this.known.filter((model) => model !== this.main.choice.model));
    if (!this.other.choice.model) this.other.clear();
    this.classes = this.main.choice.model.reads.classes ?? [];
    this.list.replaceChildren(...this.classes.map((value) => h("option", { value })));
  }

  snapshot() {
    return structuredClone(this.pad.strokes);
  }

  enable() {
    const nothing = this.pad.strokes.length === 0;
    for (const each of [...this.buttons, ...this.downloads]) each.disabled = nothing;
    this.teach.hidden = !this.main.answer;
  }

  changed(ended) {
    this.ended = ended;
    this.deciding.drop();
    if (this.pad.weights === null) this.showReasons(null);
    const strokes = this.snapshot();
    if (!hasInk(strokes)) {
      this.main.clear();
      this.other.clear();
    }
    this.main.push(strokes);
    this.other.push(strokes);
    if (ended) this.explain();
    this.taught.clear();
    this.enable();
  }

  modelChanged(guesses) {
    if (guesses === this.main) {
      this.mainChanged();
      this.pad.weights = null;
      this.pad.paint();
      this.showReasons(null);
      this.explain();
    }
    guesses.push(this.snapshot());
    this.enable();
  }

  answered(guesses, ranked) {
    if (guesses === this.main && this.ended) {
      this.live.textContent = `Guesses: ${ranked.slice(0, 3).map(([name, p]) => `${name}, ${percent(p)}`).join("; ")}.`;
    }
    this.enable();
  }

  // Which strokes decided

  buildWhy() {
    this.toggle = h("input", { type: "checkbox", checked: true, role: "switch", onchange: () => this.explain() });
    this.legend = h("ul", { class: "legend" },
      h("li", { class: "for" }, "speaks for the guess"),
      h("li", { class: "against" }, "speaks against it"),
      h("li", { class: "neutral" }, "makes little difference"));
    this.reasons = h("ol", { class: "reasons" });
    this.whyText = h("p", { class: "muted" });
    this.whyNote = new Note();
    this.why = h("div", { class: "card" },
      h("div", { class: "row" }, h("h2", { class: "grow" }, "Which strokes decided"),
        h("label", { class: "switch" }, this.toggle, "Show")),
      this.whyText, this.legend, details("By stroke", this.reasons), this.whyNote.element);
    this.showReasons(null);
  }

  explain() {
    this.deciding.drop();
    if (!this.toggle.checked) {
      this.pad.weights = null;
      this.pad.paint();
      this.showReasons(null);
    } else if (this.pad.strokes.length > 1 && hasInk(this.pad.strokes)) this.deciding.push(this.snapshot());
  }

  async decide(strokes, current) {
    const { model } = this.main.choice;
    if (strokes.length + 1 > model.limits.items) {
      this.whyNote.say(`The server takes ${model.limits.items} drawings at once, too few for ${strokes.length} strokes.`);
      return;
    }
    const without = leaveOneOut(strokes);
    const usable = without.map(hasInk); // a dot alone is no drawing
    const inputs = [strokes, ...without.filter((_, i) => usable[i])].map((each) => ({ strokes: each }));
    this.whyNote.busy("Leaving out each stroke");
    try {
      const { responses: [whole, ...parts] } = await predict(model.name, inputs, {}, { log: false });
      if (!current()) return;
      this.whyNote.clear();
      const changes = usable.map((ok) => (ok ? whole.probability - parts.shift().probabilities[whole.label] : 0));
      const largest = Math.max(...changes.map(Math.abs), 0.02);
      this.pad.weights = changes.map((change) => change / largest);
      this.pad.paint();
      this.showReasons(changes, whole.label);
    } catch (error) {
      if (current()) this.whyNote.error(error, () => this.explain());
    }
  }

  showReasons(changes, label = "") {
    this.legend.hidden = this.reasons.parentElement.hidden = changes === null;
    if (changes === null) {
      this.whyText.textContent = !this.toggle.checked
        ? "Switched off."
        : "From the second stroke on, each is left out in turn, and its line shows how much the probability of the guess changes.";
      this.reasons.replaceChildren();
      return;
    }
    const decisive = changes.indexOf(Math.max(...changes));
    this.whyText.textContent = changes[decisive] < 0.005
      ? `No single stroke decides for \u201c${label}\u201d.`
      : `Stroke ${decisive + 1} of ${changes.length} matters most: without it \u201c${label}\u201d loses ${(100 * changes[decisive]).toFixed(1)} points.`;
    this.reasons.replaceChildren(...changes.map((change) => h("li", {}, points(change))));
  }

  // Feedback and downloads

  buildFeedback() {
    this.list = h("datalist", { id: id("classes") });
    this.word = h("input", { list: this.list.id, required: true, autocomplete: "off", placeholder: "search the classes" });
    this.taught = new Note();
    const form = h("form", { class: "row bottom" },
      field("It was a\u2026", this.word), h("button", { type: "submit" }, "Send feedback"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.sendFeedback();
    });
    this.teach = h("div", { class: "card" }, h("h2", {}, "Was the guess right?"), form, this.list, this.taught.element);
  }

  async sendFeedback() {
    const truth = this.word.value.trim();
    const { answer } = this.main;
    if (this.classes.length && !this.classes.includes(truth)) {
      this.taught.say(`The model has no class \u201c${truth}\u201d; choose one from the list.`, "error");
      return;
    }
    try {
      // The guesses are not logged, as most are of unfinished drawings; this drawing is whole.
      const { request_id } = await predict(answer.model, [{ strokes: this.snapshot() }]);
      await feedback({ request_id, item: 0, model: answer.model, truth });
      this.taught.say(`Thank you. The server keeps that this was a ${truth}.`, "good");
    } catch (error) {
      if (error.code === "no_feedback") this.taught.say("This server keeps no feedback. Whoever runs it can start it with --log-folder FOLDER.", "info");
      else this.taught.error(error, () => this.sendFeedback());
    }
  }

  saveNdjson() {
    const label = this.main.answer?.label ?? "";
    const word = this.word.value.trim() || label;
    const line = toNdjson(this.pad.strokes, word, word === label && countPoints(this.pad.strokes) > 0);
    download("drawing.ndjson", "application/x-ndjson", line);
  }
}
