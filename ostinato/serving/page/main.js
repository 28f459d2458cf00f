// The page: its tabs, the state of the connection, and the dialog for the key.

import { connection, isDown, onKey } from "./api.js";
import { h } from "./dom.js";
import { models, refreshModels } from "./panel.js";
import * as between from "./between.js";
import * as draw from "./draw.js";
import * as finish from "./finish.js";
import * as monitoring from "./monitoring.js";
import * as music from "./music.js";
import * as series from "./series.js";
import * as text from "./text.js";
import * as video from "./video.js";

const TABS = { draw, finish, between, series, text, video, music, monitoring };
const NAMES = {
  draw: "Draw", finish: "Finish", between: "Between", series: "Series", text: "Text", video: "Video", music: "Music", monitoring: "Monitoring",
};

/** Tabs that are only there while a model that they need is served. */
const NEEDS = {
  finish: (model) => model.kind === "generation",
  between: (model) => model.kind === "generation" && between.encodes(model),
  music: (model) => model.kind === "music",
};

const list = document.getElementById("tabs");
const panels = document.getElementById("panels");
const tabs = Object.keys(TABS).map((name) => {
  const tab = h("button", {
    type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`,
    onclick: () => show(name, true),
  }, NAMES[name]);
  const panel = h("section", {
    role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, hidden: true,
  });
  list.append(tab);
  panels.append(panel);
  return { name, tab, panel, built: false };
});

function show(name, remember) {
  for (const each of tabs) {
    const chosen = each.name === name;
    each.tab.setAttribute("aria-selected", String(chosen));
    each.tab.tabIndex = chosen ? 0 : -1;
    each.panel.hidden = !chosen;
    if (chosen && !each.built) {
      each.built = true;
      TABS[name].create(each.panel);
    }
    if (chosen) each.tab.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  showTabs();
  document.title = `${NAMES[name]} \u00b7 Ostinato`;
  if (remember) history.replaceState(null, "", `#${name}`);
}

/** Show the tabs whose model is served, and the chosen one, which says what it needs. */
function showTabs() {
  for (const { name, tab } of tabs) {
    const needed = !(name in NEEDS) || (models.list ?? []).some(NEEDS[name]);
    tab.hidden = !needed && tab.getAttribute("aria-selected") !== "true";
  }
}

models.addEventListener("change", showTabs);

list.addEventListener("keydown", (event) => {
  const visible = tabs.filter((each) => !each.tab.hidden);
  const index = visible.findIndex((each) => each.tab === document.activeElement);
  const target = {
    ArrowRight: (index + 1) % visible.length,
    ArrowLeft: (index + visible.length - 1) % visible.length,
    Home: 0,
    End: visible.length - 1,
  }[event.key];
  if (target === undefined) return;
  event.preventDefault();
  visible[target].tab.focus();
  show(visible[target].name, true);
});

const fromAddress = () => {
  const name = location.hash.slice(1);
  return name in TABS ? name : "draw";
};
window.addEventListener("hashchange", () => show(fromAddress(), false));

// The state of the connection

const state = document.getElementById("connection");

function showState() {
  const ready = (models.list || []).filter((model) => model.ready).length;
  const loading = (models.list || []).length - ready;
  const unreachable = isDown() || models.failure;
  state.className = `connection ${unreachable ? "down" : loading ? "loading" : "up"}`;
  const count = `${ready} model${ready === 1 ? "" : "s"}`;
  const text = unreachable
    ? "Reconnecting"
    : models.list === null ? "Connecting" : loading ? `${count}, ${loading} loading` : count;
  if (state.textContent !== text) state.textContent = text;
}

models.addEventListener("change", showState);
connection.addEventListener("down", showState);
connection.addEventListener("up", () => refreshModels());

// The key

const dialog = document.getElementById("key-dialog");
const input = document.getElementById("key");
dialog.addEventListener("cancel", (event) => event.preventDefault());
onKey((wrong) => {
  document.getElementById("key-wrong").hidden = !wrong;
  input.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(input.value.trim()), { once: true });
  });
});

// A file that misses its place must not replace the page.
for (const name of ["dragover", "drop"]) {
  window.addEventListener(name, (event) => event.preventDefault());
}

refreshModels();
show(fromAddress(), false);
