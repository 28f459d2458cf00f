// The tab Video: the frames that were read, the classes, and the activation of each frame.

import { Latest, predict } from "./api.js";
import { details, dropZone, h, percent, points, showBars, table } from "./dom.js";
import { modelSelect, Note, panelOfKind } from "./panel.js";

const CLIPS = 4; // that the server explains, at most

export const create = (panel) => panelOfKind(panel, {
  kind: "video",
  title: "No model of videos is served",
  what: "Here you drop a video and see its class, the frames that were read, and which counted.",
  example: "results/order-c3d",
}, () => new VideoTab());

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

function toDataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} could not be read from your disk.`));
    reader.readAsDataURL(file);
  });
}

class VideoTab {
  constructor() {
    this.file = null;
    this.choice = modelSelect("Model", { onchange: () => this.ask() });
    this.limit = h("p", { class: "muted small" });
    this.note = new Note();
    this.drop = dropZone({
      label: "Drop a video, or choose one",
      hint: "mp4, webm, mkv, mov, avi or gif",
      accept: "video/*,image/gif,.mkv,.avi",
      take: (file) => {
        this.file = file;
        this.ask();
      },
    });
    this.name = h("h2", {});
    this.best = h("p", { class: "best" });
    this.by = h("p", { class: "muted small" });
    this.bars = h("ol", { class: "bars", "aria-label": "Classes, the most probable first" });
    this.clips = h("div", { class: "stack" });
    this.live = h("p", { class: "hidden-text", "aria-live": "polite" });
    this.result = h("div", { class: "stack", hidden: true },
      h("div", { class: "card" }, this.name, this.best, this.by, this.bars), this.clips);
    this.element = h("div", { class: "stack" },
      h("div", { class: "card stack" }, this.choice.element, this.drop, this.limit, this.note.element, this.live), this.result);
    this.latest = new Latest((file, current) => this.classify(file, current));
  }

  setModels(list) {
    const again = this.choice.set(list) && this.file;
    this.limit.textContent = `The server takes requests of up to ${megabytes(this.largest)}: files of up to ${megabytes(0.74 * this.largest)}.`;
    if (again) this.ask();
  }

  get largest() {
    return this.choice.model.limits.body_bytes;
  }

  ask() {
    if (!this.file) return;
    this.latest.drop();
    this.result.hidden = true;
    this.latest.push(this.file);
  }

  async classify(file, current) {
    const { model } = this.choice;
    this.note.busy("Reading the frames, then hiding each in turn");
    try {
      if ((file.size * 4) / 3 + 500 > this.largest) {
        this.note.say(`${file.name} has ${megabytes(file.size)}, which is too large for this server. Cut or compress the video, or start the server with a larger --max-body-mb.`, "error");
        return;
      }
      const video = await toDataUrl(file);
      const answer = await predict(model.name, [{ video }], { top_k: 5, explain_clips: CLIPS });
      if (!current()) return;
      this.note.clear();
      this.show(file, answer);
    } catch (error) {
      if (!current()) return;
      this.note.error(error, error.status === 422 ? null : () => this.ask());
    }
  }

  show(file, { model, version, responses: [found] }) {
    this.name.textContent = file.name;
    this.best.textContent = found.label;
    this.by.textContent = `By ${model}, version ${version}.`;
    showBars(this.bars, found.probabilities);
    this.clips.replaceChildren(...found.clips.map((clip) => clipCard(clip, found.label, found.clips.length)));
    this.result.hidden = false;
    this.live.textContent = `${file.name}: ${found.label}, ${percent(found.probability)}.`;
  }
}

function clipCard(clip, label, count) {
  const bytes = Uint8Array.from(atob(clip.pixels), (c) => c.charCodeAt(0));
  const largest = Math.max(...clip.activation.map(Math.abs), 1e-6);
  const figures = clip.activation.map((value, i) => {
    const bar = h("span", { class: value < 0 ? "activation against" : "activation for" });
    bar.style.height = `${(50 * Math.abs(value)) / largest}%`;
    const figure = h("figure", { class: "frame" }, canvasOf(clip, bytes, i),
      h("span", { class: "activation-track", "aria-hidden": "true" }, bar),
      h("figcaption", {}, String(i + 1)));
    return h("li", { title: `Frame ${i + 1}: ${points(value)}` }, figure);
  });
  const peak = clip.activation.indexOf(Math.max(...clip.activation));
  const title = count > 1 ? `Clip ${clip.clip + 1}` : "Frames";
  return h("div", { class: "card" },
    h("h2", {}, title),
    h("p", {}, `The model read ${clip.frames} frames of ${clip.width} \u00d7 ${clip.height} pixels over ${clip.seconds.toFixed(1)} s; \u201c${label}\u201d has ${percent(clip.probability)}. ` +
      (clip.activation[peak] > 0.005 ? `Frame ${peak + 1} counts most.` : "No single frame decides.")),
    h("ol", { class: "frames" }, figures),
    h("ul", { class: "legend" }, h("li", { class: "for" }, "speaks for the class"), h("li", { class: "against" }, "speaks against it")),
    h("p", { class: "muted small" }, `The bars are occlusion by frame: each frame is replaced with the mean of the clip\u2019s frames, and the bar is the probability of \u201c${label}\u201d that is lost. It asks the model only for predictions, so it means the same for every model. A frame that others can stand in for has a small bar.`),
    details("Values", table(`Activation by frame, ${title}`, ["Frame", "Change without it"],
      clip.activation.map((value, i) => [String(i + 1), points(-value)]))));
}

function canvasOf({ height, width, channels }, bytes, index) {
  const canvas = h("canvas", { width: String(width), height: String(height), role: "img", "aria-label": `Frame ${index + 1}` });
  const picture = new ImageData(width, height);
  const start = index * height * width * channels;
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) picture.data[4 * i + c] = bytes[start + i * channels + (channels === 3 ? c : 0)];
    picture.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}
