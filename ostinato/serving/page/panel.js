// What the tabs share: notes about the state of a request, models to choose from, empty states.

import { connection, get } from "./api.js";
import { field, h, select, setOptions } from "./dom.js";

const SLOW_MS = 700;
const POLL_MS = 1000;
const REFRESH_MS = 15_000;

/** The served models; event "change". */
export const models = new EventTarget();
models.list = null; // null: not known yet
models.failure = null;
let timer = 0;

export async function refreshModels() {
  clearTimeout(timer);
  let loading = true;
  try {
    models.list = await get("/v1/models");
    models.failure = null;
    loading = models.list.some((model) => !model.ready);
  } catch (error) {
    models.failure = error;
  }
  models.dispatchEvent(new Event("change"));
  timer = setTimeout(refreshModels, loading ? POLL_MS : REFRESH_MS);
}

/** What to do about an error, for people. */
function advice(error) {
  const advices = {
    unreachable: "It may be restarting. This page tries again by itself.",
    timeout: "It may be busy. Try again.",
    not_ready: "The model is being loaded. This page tries again by itself.",
    body_too_large: "Send less, or start the server with a larger --max-body-mb.",
    queue_full: "Many requests wait. Try again in a moment.",
    model_failed: "The server's log says where.",
    internal: "The server's log says more.",
  };
  return advices[error.code] ?? "";
}

/** A line below a tool: waiting, or an error with what to do and a way to try again. */
export class Note {
  constructor() {
    this.element = h("div", { class: "note-place", role: "status", tabindex: "-1" });
    this.timer = 0;
    this.retry = null; // what is tried again by itself
    this.waits = ""; // for the connection or for a model
    connection.addEventListener("up", () => this.waits === "unreachable" && this.retry());
    models.addEventListener("change", () => {
      if (this.waits === "not_ready" && models.list.every((model) => model.ready)) this.retry();
    });
  }

  clear() {
    clearTimeout(this.timer);
    this.waits = "";
    this.element.replaceChildren();
  }

  /** Say so if the server takes long. */
  busy(text = "Waiting for the server") {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.element.replaceChildren(h("p", { class: "note busy" }, h("span", { class: "spinner", "aria-hidden": "true" }), `${text}\u2026`));
    }, SLOW_MS);
  }

  say(text, kind = "info") {
    this.clear();
    this.element.replaceChildren(h("p", { class: `note ${kind}` }, text));
  }

  /** Show an error; `retry` runs on a click, and by itself when that makes sense. */
  error(error, retry = null) {
    this.clear();
    if (error.name === "AbortError") return;
    if (error.status === undefined) console.error(error);
    const first = (error.message || String(error)).replace(/^./, (c) => c.toUpperCase());
    const again = () => {
      this.clear();
      retry?.();
    };
    const pressed = () => {
      this.element.focus(); // the button goes away
      again();
    };
    this.element.replaceChildren(
      h("p", { class: "note error" },
        h("strong", {}, first.replace(/([^.!?])$/, "$1.")), " ", advice(error), " ",
        retry ? h("button", { type: "button", onclick: pressed }, "Try again") : null));
    if (retry && ["unreachable", "not_ready"].includes(error.code)) {
      this.retry = again;
      this.waits = error.code;
      if (error.code === "not_ready") refreshModels();
    }
  }
}

/** A select of models; `none` is the text of the choice of no model. */
export function modelSelect(label, { none = null, onchange }) {
  const control = select([], { onchange });
  const choice = {
    element: field(label, control),
    get model() {
      return (models.list || []).find((model) => model.name === control.value) || null;
    },
    set(list) {
      const before = control.value;
      setOptions(control, [...(none ? [["", none]] : []), ...list.map((m) => [m.name, m.name])]);
      choice.element.hidden = none !== null && list.length === 0;
      return control.value !== before;
    },
  };
  return choice;
}

const command = (text) => h("pre", { class: "command", tabindex: "0" }, h("code", {}, text));

export const empty = (title, ...content) =>
  h("div", { class: "card empty" }, h("h2", {}, title), ...content);

/**
 * A tab for models of one kind: its tool where one is served, else how to serve one.
 *
 * @param fits whether a ready model of the kind can be used.
 * @param build called once, when the first model is ready; returns {element, setModels(list)}.
 */
export function panelOfKind(panel, { kind, title, what, example, fits = () => true }, build) {
  let tool = null;
  const update = () => {
    const served = (models.list || []).filter((model) => model.kind === kind && (!model.ready || fits(model)));
    const ready = served.filter((model) => model.ready);
    if (ready.length) {
      tool ||= build();
      if (!tool.element.isConnected) panel.replaceChildren(tool.element);
      tool.setModels(ready);
      return;
    }
    if (tool?.element.isConnected && (models.failure || served.length)) return; // it will come back
    const failed = served.find((model) => model.failure);
    if (models.list === null) {
      panel.replaceChildren(models.failure
        ? empty("The server cannot be reached", h("p", {}, "This page tries again by itself. If the server has ended, start it again:"), command("python -m ostinato serve MODEL"))
        : empty("Asking the server", h("p", { class: "note busy" }, h("span", { class: "spinner", "aria-hidden": "true" }), "Which models are served\u2026")));
    } else if (failed) {
      panel.replaceChildren(empty(`${failed.name} could not be loaded`,
        h("p", { class: "note error" }, failed.failure.message), h("p", {}, "The server tries again every minute.")));
    } else if (served.length) {
      panel.replaceChildren(empty("Loading", h("p", { class: "note busy" }, h("span", { class: "spinner", "aria-hidden": "true" }), `The server loads ${served[0].name}\u2026`)));
    } else {
      panel.replaceChildren(empty(title, h("p", {}, what),
        h("p", {}, "Add the folder of a trained run, or the name of a registered model, to the server's command:"),
        command(`python -m ostinato serve ${example}`)));
    }
  };
  models.addEventListener("change", update);
  update();
}
