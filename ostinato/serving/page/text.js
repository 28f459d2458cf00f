// The tab Text: translations with alternatives, and what each word attended to.

import { Latest, predict } from "./api.js";
import { field, h, percent } from "./dom.js";
import { modelSelect, Note, panelOfKind } from "./panel.js";

const ALTERNATIVES = 5;

export const create = (panel) => panelOfKind(panel, {
  kind: "text",
  title: "No translator is served",
  what: "Here you translate a text, see alternatives, and what each word attended to.",
  example: "results/translation-attention",
}, () => new TextTab());

function languageName(code) {
  try {
    return new Intl.DisplayNames("en", { type: "language" }).of(code);
  } catch {
    return code; // not of ISO 639
  }
}

class TextTab {
  constructor() {
    this.choice = modelSelect("Model", { onchange: () => this.modelChanged() });
    this.input = h("textarea", { rows: "3", spellcheck: "false" });
    this.inputField = field("Text", this.input);
    this.note = new Note();
    const form = h("form", { class: "stack" }, this.choice.element, this.inputField,
      h("div", { class: "row" },
        h("button", { type: "submit", class: "primary" }, "Translate"),
        h("span", { class: "muted small" }, "or Ctrl+Enter")), this.note.element);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.ask();
      }
    });
    this.result = h("div", { class: "card" });
    this.live = h("p", { class: "hidden-text", "aria-live": "polite" });
    this.element = h("div", { class: "split" }, h("div", { class: "card" }, form, this.live), this.result);
    this.latest = new Latest((text, current) => this.translate(text, current));
    this.clear();
  }

  clear() {
    this.latest.drop();
    this.result.replaceChildren(h("h2", {}, "Translation"), h("p", { class: "muted" }, "The translation appears here. Point at a word, or focus it, to see which words it attended to."));
  }

  setModels(list) {
    if (this.choice.set(list)) this.modelChanged();
  }

  modelChanged() {
    const { reads, example } = this.choice.model;
    const [source] = reads.languages ?? [];
    this.inputField.querySelector("label").textContent = source ? `Text in ${languageName(source)}` : "Text";
    this.input.lang = source ?? "";
    if (!this.input.value && example) this.input.placeholder = example.text;
    this.note.clear();
    this.clear();
  }

  ask() {
    const text = this.input.value.trim() || this.input.placeholder;
    if (!text) {
      this.note.say("Write a text first.");
      this.input.focus();
      return;
    }
    this.input.value ||= text;
    this.latest.push(text);
  }

  async translate(text, current) {
    const { model } = this.choice;
    this.note.busy("Translating");
    try {
      const { responses: [found], version } = await predict(model.name, [{ text }], { top_k: ALTERNATIVES });
      if (!current()) return;
      this.note.clear();
      this.live.textContent = `Translation: ${found.translation}`;
      this.show(found, `${model.name}, version ${version}`);
    } catch (error) {
      if (current()) this.note.error(error, error.status === 422 ? null : () => this.ask());
    }
  }

  show(found, by) {
    const aligned = h("div", { class: "stack" });
    const best = h("p", { class: "best translation", lang: found.language }, found.translation);
    const choose = (translation) => {
      best.textContent = translation.text;
      aligned.replaceChildren(...alignment(found, translation));
    };
    const list = h("ol", { class: "alternatives" }, found.translations.map((translation, i) => {
      const button = h("button", {
        type: "button", class: "alternative", "aria-pressed": String(i === 0),
        onclick: () => {
          for (const each of list.querySelectorAll("button")) each.setAttribute("aria-pressed", String(each === button));
          choose(translation);
        },
      }, h("span", { lang: found.language }, translation.text), h("span", { class: "muted small" }, `log probability ${translation.log_probability.toFixed(1).replace("-", "\u2212")}`));
      return h("li", {}, button);
    }));
    this.result.replaceChildren(h("h2", {}, "Translation"), best,
      h("p", { class: "muted small" }, `By ${by}.${found.split ? " The text was long and was translated in parts." : ""}`),
      aligned,
      ...(found.translations.length > 1 ? [h("h3", {}, "Alternatives, the best first"), list] : []));
    if (found.translations.length) choose(found.translations[0]);
  }
}

/** The words of source and translation; a word of the translation shows its attention. */
function alignment(found, { words, alignment: rows, alignment_starts: starts }) {
  if (!rows || !words.length) {
    return [h("p", { class: "muted" }, "There is no alignment: the model has no attention, or the text was copied.")];
  }
  const readout = h("p", { class: "readout", "aria-live": "polite" }, "Point at a word of the translation, or move through them with the arrow keys.");
  const sources = found.source_words.map((word) => h("span", { class: "word source" }, word));
  const show = (index) => {
    targets.forEach((each, i) => each.classList.toggle("chosen", i === index));
    const weights = sources.map((_, j) => rows[index][j - starts[index]] ?? 0);
    sources.forEach((each, j) => {
      each.style.setProperty("--weight", weights[j].toFixed(3));
      each.classList.toggle("attended", weights[j] >= 0.1);
    });
    const ranked = weights.map((w, j) => [w, j]).sort((a, b) => b[0] - a[0]).slice(0, 3).filter(([w]) => w >= 0.05);
    readout.textContent = `\u201c${words[index]}\u201d attended to ${ranked.map(([w, j]) => `\u201c${found.source_words[j]}\u201d ${percent(w)}`).join(", ") || "no word in particular"}`;
  };
  const targets = words.map((word, i) => h("button", {
    type: "button", class: "word target", tabindex: i ? "-1" : "0", lang: found.language,
    onfocus: () => show(i), onpointerenter: () => show(i), onclick: () => show(i),
    onkeydown: (event) => {
      const next = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: words.length - 1 }[event.key];
      if (next === undefined || !targets[next]) return;
      event.preventDefault();
      targets[i].tabIndex = -1;
      targets[next].tabIndex = 0;
      targets[next].focus();
    },
  }, word));
  return [
    h("div", {}, h("h3", {}, "Attention"), readout),
    h("div", { class: "words", role: "group", "aria-label": "Words of the translation" }, targets),
    h("div", { class: "words", role: "group", "aria-label": "Words of the text" }, sources),
  ];
}
