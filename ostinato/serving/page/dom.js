// Build elements; the few parts that several tabs share.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in { value: 0, htmlFor: 0, checked: 0 }) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

/** An HTML element; a property `onclick` is a listener, others are attributes. */
export const h = (tag, props = {}, ...children) =>
  fill(document.createElement(tag), props, children);

/** An SVG element. */
export const s = (tag, props = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), props, children);

let count = 0;
export const id = (prefix) => `${prefix}-${++count}`;

/** A labelled form control. */
export function field(label, control, hint = null) {
  control.id ||= id("field");
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, hint);
}

export const select = (options, props = {}) =>
  h("select", props, options.map(([value, text]) => h("option", { value }, text)));

/** Replace the options of a select; keep its value where it still exists. */
export function setOptions(control, options) {
  const value = control.value;
  control.replaceChildren(...options.map(([key, text]) => h("option", { value: key }, text)));
  if (options.some(([key]) => key === value)) control.value = value;
}

export const percent = (p) => (p >= 0.9995 ? "100%" : `${(100 * p).toFixed(p < 0.1 ? 1 : 0)}%`);

export const points = (change) =>
  `${change < 0 ? "\u2212" : "+"}${Math.abs(100 * change).toFixed(1)} points`;

export const number = (value) =>
  value === null || value === undefined
    ? "\u2013"
    : value.toLocaleString("en", { maximumSignificantDigits: 4, useGrouping: Math.abs(value) >= 1e4 });

/** Classes with their probabilities as bars, in place. */
export function showBars(list, probabilities, most = 5) {
  const ranked = Object.entries(probabilities).sort((a, b) => b[1] - a[1]).slice(0, most);
  list.replaceChildren(
    ...ranked.map(([name, p]) => {
      const bar = h("span", { class: "bar-fill" });
      bar.style.width = `${Math.max(0.5, 100 * p)}%`;
      return h("li", { class: "bar" },
        h("span", { class: "bar-name" }, name),
        h("span", { class: "bar-value" }, percent(p)),
        h("span", { class: "bar-track", "aria-hidden": "true" }, bar));
    }),
  );
  return ranked;
}

export function table(caption, head, rows) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {},
      h("caption", { class: "hidden-text" }, caption),
      h("thead", {}, h("tr", {}, head.map((cell) => h("th", { scope: "col" }, cell)))),
      h("tbody", {}, rows.map((row) =>
        h("tr", {}, row.map((cell, i) => h(i ? "td" : "th", i ? {} : { scope: "row" }, cell)))))));
}

export const details = (title, ...content) =>
  h("details", {}, h("summary", {}, title), ...content);

/** Let the user save a text as a file. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A place where a file is dropped or chosen. */
export function dropZone({ label, hint, accept, take }) {
  const input = h("input", { type: "file", accept, id: id("file"), class: "hidden-text" });
  const zone = h("div", { class: "drop" }, input,
    h("label", { for: input.id, class: "drop-label" },
      h("span", { class: "drop-title" }, label), h("span", { class: "muted" }, hint)));
  input.addEventListener("change", () => {
    if (input.files[0]) take(input.files[0]);
    input.value = "";
  });
  const over = (event) => {
    event.preventDefault();
    zone.classList.add("over");
  };
  zone.addEventListener("dragenter", over);
  zone.addEventListener("dragover", over);
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
  return zone;
}
