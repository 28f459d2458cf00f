// The tab Music: a model writes a piece, or goes on where a MIDI file ends; it is shown, played and saved.

import { Latest, predict } from "./api.js";
import { download, dropZone, field, h, id, s, select, setOptions } from "./dom.js";
import { modelSelect, Note, panelOfKind } from "./panel.js";
import { Player } from "./player.js";

const BARS = [4, 8, 12, 16, 24, 32];
const BAR_PX = 72; // least width of a bar
const NOTE_PX = 7; // height of a note
const MARGIN = 3; // semitones above and below the notes
const MAX_MIDI_BYTES = 1 << 20;
const NAMES = ["C", "C\u266f", "D", "D\u266f", "E", "F", "F\u266f", "G", "G\u266f", "A", "A\u266f", "B"];

export const create = (panel) => panelOfKind(panel, {
  kind: "music",
  title: "No model of music is served",
  what: "Here a model writes a piece in a key, or goes on where your MIDI file ends. You see it, hear it and keep it.",
  example: "results/music-conditional",
}, () => new MusicTab());

/** The name of a MIDI number: 60 is C4. */
const noteName = (pitch) => `${NAMES[pitch % 12]}${Math.floor(pitch / 12) - 1}`;

class MusicTab {
  constructor() {
    this.choice = modelSelect("Model", { onchange: () => this.modelChanged() });
    this.style = select([]);
    this.key = select([]);
    this.told = h("div", { class: "fields" }, field("Style", this.style), field("Key", this.key));
    this.bars = select(BARS.map((n) => [String(n), String(n)]));
    this.bars.value = "8";
    this.readout = h("output", {});
    this.slider = h("input", {
      type: "range", min: "0.1", max: "1.5", step: "0.05", oninput: () => this.showTemperature(),
    });
    this.beginning = null;
    this.begun = h("p", { class: "row" });
    this.note = new Note();
    this.live = h("p", { class: "hidden-text", "aria-live": "polite" });
    const form = h("form", { class: "stack" },
      h("div", { class: "fields" }, this.choice.element, field("Bars", this.bars),
        field("Temperature", this.slider, this.readout)),
      this.told,
      dropZone({
        label: "Begin with a MIDI file", hint: "Drop it here, or choose one. Without a file, all is new.",
        accept: ".mid,.midi", take: (file) => this.take(file),
      }),
      this.begun,
      h("div", { class: "row" }, h("button", { type: "submit", class: "primary" }, "Write a piece")),
      this.note.element);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    this.player = new Player({ moved: (quarter) => this.showTime(quarter), ended: () => this.showPlaying() });
    this.result = h("div", { class: "card" });
    this.element = h("div", { class: "stack" }, h("div", { class: "card" }, form, this.live), this.result);
    this.latest = new Latest((input, current) => this.write(input, current));
    this.showBeginning();
    this.clear();
  }

  clear() {
    this.latest.drop();
    this.player.stop();
    this.result.replaceChildren(h("h2", {}, "Piece"), h("p", { class: "muted" }, "The piece appears here."));
  }

  setModels(list) {
    if (this.choice.set(list)) this.modelChanged();
  }

  modelChanged() {
    const { styles, keys, temperature, max_bars: most } = this.choice.model.reads;
    const any = [["", "any"]];
    this.told.hidden = styles.length === 0;
    setOptions(this.style, [...any, ...styles.map((name) => [name, name])]);
    setOptions(this.key, [...any, ...keys.map((name) => [name, name])]);
    setOptions(this.bars, BARS.filter((n) => n <= most).map((n) => [String(n), String(n)]));
    this.slider.value = String(temperature);
    this.showTemperature();
    this.note.clear();
    this.clear();
  }

  showTemperature() {
    this.readout.textContent = Number(this.slider.value).toFixed(2);
    this.slider.setAttribute("aria-valuetext", this.readout.textContent);
  }

  async take(file) {
    if (file.size > MAX_MIDI_BYTES) {
      this.note.say(`${file.name} has more than 1 MB. Choose a smaller file.`, "error");
      return;
    }
    const bytes = new Uint8Array(await file.arrayBuffer());
    this.beginning = { name: file.name, midi: btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join("")) };
    this.note.clear();
    this.showBeginning();
  }

  showBeginning() {
    this.begun.hidden = this.beginning === null;
    this.begun.replaceChildren(`Begins with ${this.beginning?.name}. `, h("button", {
      type: "button",
      onclick: () => {
        this.beginning = null;
        this.showBeginning();
      },
    }, "Remove"));
  }

  ask() {
    this.latest.push({
      style: this.style.value || null,
      key: this.key.value || null,
      midi: this.beginning?.midi ?? null,
      bars: Number(this.bars.value),
      temperature: Number(this.slider.value),
      seed: crypto.getRandomValues(new Uint32Array(1))[0],
    });
  }

  async write(input, current) {
    const { model } = this.choice;
    this.note.busy("Writing");
    try {
      const { responses: [piece], version } = await predict(model.name, [input], { midi: true }, { log: false });
      if (!current()) return;
      this.note.clear();
      this.show(piece, model, version);
    } catch (error) {
      if (current()) this.note.error(error, error.status === 422 ? null : () => this.latest.push(input));
    }
  }

  show(piece, model, version) {
    this.player.stop();
    const { quarters_per_bar: bar, quarters_per_minute: tempo } = model.reads;
    this.quarters = piece.quarters;
    this.player.load(piece.notes, tempo);
    this.button = h("button", { type: "button", class: "primary", disabled: piece.notes.length === 0, onclick: () => this.toggle() });
    this.cursor = s("line", { class: "playing", y1: "0", visibility: "hidden" });
    const save = h("button", { type: "button", onclick: () => {
      const bytes = Uint8Array.from(atob(piece.midi), (c) => c.charCodeAt(0));
      download("piece.mid", "audio/midi", bytes);
    } }, "Save MIDI file");
    const facts = [piece.style, piece.key, `${piece.quarters / bar} bars`, `${piece.notes.length} notes`];
    const text = facts.filter((fact) => fact !== null).join(", ");
    this.result.replaceChildren(h("h2", {}, "Piece"), h("p", {}, text),
      h("div", { class: "row" }, this.button, save),
      piece.given_quarters ? h("ul", { class: "legend" }, h("li", { class: "given" }, "your beginning"), h("li", { class: "made" }, "the model's")) : "",
      this.roll(piece, bar, text),
      h("p", { class: "muted small" }, `${model.name}, version ${version}`));
    this.showPlaying();
    this.live.textContent = `A piece: ${text}.`;
  }

  /** The piano roll: time to the right, pitch upwards. */
  roll(piece, bar, text) {
    const pitches = piece.notes.map(([, , pitch]) => pitch);
    const low = Math.min(60, ...pitches) - MARGIN;
    const high = Math.max(72, ...pitches) + MARGIN;
    const unit = BAR_PX / bar;
    const [width, height] = [piece.quarters * unit, (high - low + 1) * NOTE_PX];
    const y = (pitch) => (high - pitch) * NOTE_PX;
    const title = id("piece");
    const octaves = [];
    for (let pitch = Math.ceil(low / 12) * 12; pitch <= high; pitch += 12) {
      octaves.push(s("line", { class: "octave", x1: "0", x2: String(width), y1: String(y(pitch) + NOTE_PX), y2: String(y(pitch) + NOTE_PX) }),
        s("text", { x: "3", y: String(y(pitch) + NOTE_PX - 2) }, noteName(pitch)));
    }
    const bars = Array.from({ length: Math.ceil(piece.quarters / bar) }, (_, i) =>
      s("line", { class: "bar-line", x1: String(i * BAR_PX), x2: String(i * BAR_PX), y1: "0", y2: String(height) }));
    const notes = piece.notes.map(([start, duration, pitch]) => s("rect", {
      class: start < piece.given_quarters ? "given" : "made",
      x: String(start * unit), y: String(y(pitch)), width: String(duration * unit - 1), height: String(NOTE_PX - 1), rx: "2",
    }, s("title", {}, `${noteName(pitch)}, ${duration} quarters`)));
    this.cursor.setAttribute("y2", String(height));
    this.unit = unit;
    this.scroller = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Piano roll" },
      s("svg", { class: "roll", viewBox: `0 0 ${width} ${height}`, width: String(width), height: String(height), role: "img", "aria-labelledby": title },
        s("title", { id: title }, `Piano roll: ${text}`), octaves, bars, notes, this.cursor));
    return this.scroller;
  }

  toggle() {
    if (this.player.playing) this.player.stop();
    else this.player.play();
    this.showPlaying();
  }

  showPlaying() {
    if (this.button) this.button.textContent = this.player.playing ? "Stop" : "Play";
    if (!this.player.playing) this.cursor?.setAttribute("visibility", "hidden");
  }

  showTime(quarter) {
    const x = Math.min(quarter, this.quarters) * this.unit;
    for (const end of ["x1", "x2"]) this.cursor.setAttribute(end, String(x));
    this.cursor.setAttribute("visibility", "visible");
    const { scrollLeft, clientWidth } = this.scroller;
    if (x < scrollLeft || x > scrollLeft + clientWidth) this.scroller.scrollLeft = x;
  }
}
