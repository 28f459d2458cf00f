// The tab Series: a CSV, its forecast with intervals, and earlier forecasts against the truth.

import { ApiError, Latest, predict } from "./api.js";
import { LineChart, timeText } from "./chart.js";
import { DATE_FORMATS, detect, MAX_PROBLEMS, parse, toSeries } from "./csv.js";
import { details, dropZone, field, h, number, percent, select, setOptions, table } from "./dom.js";
import { modelSelect, Note, panelOfKind } from "./panel.js";

const MAX_FILE = 20e6; // bytes
const MIN_ORIGINS = 60; // that the slider reaches, where the series is long enough
const STEPS = { min: "minutes", h: "hours", D: "days", W: "weeks", MS: "months", ME: "months" };
const STYLES = ["forecast", "second"];

export const create = (panel) => panelOfKind(panel, {
  kind: "series",
  title: "No forecaster is served",
  what: "Here you drop a CSV of a time series and see its forecast with intervals.",
  example: "results/weather-linear",
}, () => new SeriesTab());

const iso = (ms) => new Date(ms).toISOString().slice(0, 19);
const toMs = (text) => Date.parse(/Z|[+-]\d\d:\d\d$/.test(text) ? text : `${text}Z`);
const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;

class SeriesTab {
  constructor() {
    this.rows = null;
    const change = () => this.read();
    this.main = modelSelect("Model", { onchange: () => this.modelChanged() });
    this.other = modelSelect("Beside it", { none: "no other model", onchange: () => this.ask() });
    this.date = select([], { onchange: change });
    this.value = select([], { onchange: change });
    this.format = select(DATE_FORMATS, { onchange: change });
    this.name = select([], { onchange: () => this.ask() });
    this.nameField = field("Series of the model", this.name);
    this.note = new Note();
    this.problems = h("div", { class: "problems" });
    this.chart = new LineChart("History and forecast");
    this.origin = h("input", { type: "range", step: "1", oninput: () => this.ask() });
    this.originText = h("output", { class: "muted" });
    this.errors = h("div", { "aria-live": "polite" });
    this.tables = h("div", { class: "stack" });
    this.fileName = h("h2", { class: "grow" });
    this.columns = h("div", { class: "fields" },
      field("Column of dates", this.date), field("Column of values", this.value),
      field("Dates look like", this.format), this.nameField);
    const slider = field("Origin of the forecast", this.origin, this.originText);
    this.result = h("div", { class: "stack" }, this.chart.element, slider, this.errors, this.tables);
    this.about = h("p", { class: "muted small" });
    this.loaded = h("div", { class: "card stack", hidden: true },
      this.fileName, this.columns, this.problems, this.note.element, this.result);
    this.drop = dropZone({
      label: "Drop a CSV, or choose one",
      hint: "A header, a row for each date, one column of dates and one of values",
      accept: ".csv,.tsv,.txt,text/csv",
      take: (file) => this.take(file),
    });
    this.exampleButton = h("button", { type: "button", onclick: () => this.takeExample() }, "Use the model\u2019s example");
    this.element = h("div", { class: "stack" },
      h("div", { class: "card stack" },
        h("div", { class: "fields" }, this.main.element, this.other.element), this.about,
        this.drop, this.exampleButton),
      this.loaded);
    this.latest = new Latest((origin, current) => this.forecast(origin, current));
  }

  setModels(list) {
    const changed = this.main.set(list);
    this.known = list;
    this.setOthers();
    if (changed) this.modelChanged();
  }

  setOthers() {
    this.other.set(this.known.filter((model) => model !== this.main.model));
  }

  modelChanged() {
    this.setOthers();
    const { reads, example } = this.main.model;
    this.exampleButton.hidden = !example;
    const covariates = [...reads.past_covariates, ...reads.future_covariates, ...reads.static_covariates];
    const steps = STEPS[reads.frequency] ?? `steps of frequency ${reads.frequency}`;
    this.about.textContent = `The model reads the last ${reads.window} ${steps} and forecasts the next ${reads.horizon}.` +
      (covariates.length ? ` It also needs the columns ${[...new Set(covariates)].join(", ")}.` : "");
    setOptions(this.name, reads.series.map((name) => [name, name]));
    this.nameField.hidden = reads.series.length < 2;
    if (this.rows) this.setOrigin();
  }

  async take(file) {
    this.latest.drop();
    this.loaded.hidden = false;
    this.fileName.textContent = file.name;
    this.rows = null;
    this.result.hidden = this.columns.hidden = true;
    this.problems.replaceChildren();
    if (file.size > MAX_FILE) {
      this.note.say(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB; this page reads files of up to ${MAX_FILE / 1e6} MB. Leave out the earliest rows.`, "error");
      return;
    }
    this.open(parse(await file.text()));
  }

  takeExample() {
    const { example, name } = this.main.model;
    this.loaded.hidden = false;
    this.fileName.textContent = `Example of ${name}`;
    const covariates = { ...example.past_covariates, ...example.future_covariates };
    const names = Object.keys(covariates);
    const fixed = Object.entries(example.static_covariates ?? {});
    const header = ["date", "value", ...names, ...fixed.map(([column]) => column)];
    const rows = example.dates.map((date, i) => ({
      line: i + 2,
      cells: [date, String(example.values[i] ?? ""), ...names.map((column) => String(covariates[column][i])), ...fixed.map(([, cell]) => String(cell))],
    }));
    if (example.series) this.name.value = example.series;
    this.open({ header, rows, problems: [] });
  }

  open(found) {
    this.table = found;
    const guess = detect(found);
    const options = found.header.map((name, i) => [String(i), name || `column ${i + 1}`]);
    setOptions(this.date, options);
    setOptions(this.value, options);
    this.date.value = String(Math.max(guess.date, 0));
    this.value.value = String(Math.max(guess.value, 0));
    this.format.value = guess.format;
    this.columns.hidden = found.header.length === 0;
    this.read();
  }

  read() {
    const { rows, problems } = toSeries(this.table, {
      date: Number(this.date.value), value: Number(this.value.value), format: this.format.value,
    });
    this.problems.replaceChildren();
    if (problems.length) {
      const more = problems.length - MAX_PROBLEMS;
      this.problems.append(h("div", { class: "note error", role: "alert" },
        h("strong", {}, `${problems.length} line${problems.length > 1 ? "s" : ""} could not be read and ${problems.length > 1 ? "are" : "is"} left out`),
        h("ul", {}, problems.slice(0, MAX_PROBLEMS).map(({ line, text }) => h("li", {}, `Line ${line}: ${text}`)),
          more > 0 ? h("li", {}, `and ${more} more`) : null)));
    }
    this.rows = rows;
    this.setOrigin();
  }

  setOrigin() {
    this.latest.drop();
    const { window, horizon } = this.main.model.reads;
    const count = this.rows.length;
    this.result.hidden = count === 0;
    if (!count) {
      this.note.say("No row has a date and a value. Choose other columns, or another format of dates.", "error");
      return;
    }
    const reach = Math.max(MIN_ORIGINS, 12 * horizon);
    this.origin.min = String(Math.min(count, Math.max(window, count - reach)));
    this.origin.max = String(count);
    this.origin.value = String(count);
    this.origin.disabled = count <= window;
    this.result.hidden = true;
    this.ask();
  }

  ask() {
    if (!this.rows?.length) return;
    const origin = Number(this.origin.value);
    const back = this.rows.length - origin;
    this.originText.textContent = `after ${timeText(this.rows[origin - 1].time)}${back ? `, ${back} rows before the end` : ", the last row"}`;
    this.origin.setAttribute("aria-valuetext", this.originText.textContent);
    this.latest.push(origin);
  }

  /** The history up to an origin as a model reads it. */
  input(model, origin) {
    const { reads } = model;
    const past = this.rows.slice(Math.max(0, origin - 3 * reads.window - 20), origin);
    const around = [...past, ...this.rows.slice(origin, origin + reads.horizon)];
    const needed = [...reads.past_covariates, ...reads.future_covariates, ...reads.static_covariates];
    const missing = needed.filter((name) => !this.table.header.includes(name));
    if (missing.length) throw new ApiError(0, "", `The CSV lacks columns that the model was trained with: ${missing.join(", ")}. Add them under these names.`);
    const column = (name, rows) => rows.map(({ cells }) => cells[this.table.header.indexOf(name)]);
    if (reads.future_covariates.length && around.length < past.length + reads.horizon) {
      throw new ApiError(0, "", `The model needs ${reads.future_covariates.join(", ")} for the ${reads.horizon} steps that it forecasts. Move the origin back by ${reads.horizon} rows, or add rows with these columns.`);
    }
    const collect = (names, rows) => Object.fromEntries(names.map((name) => [name, column(name, rows)]));
    const named = reads.series.includes(this.name.value) ? this.name.value : reads.series[0];
    return {
      dates: past.map(({ time }) => iso(time)),
      values: past.map(({ value }) => value),
      series: reads.series.length > 1 ? named : null,
      past_covariates: collect(reads.past_covariates, past),
      future_covariates: collect(reads.future_covariates, around),
      static_covariates: Object.fromEntries(reads.static_covariates.map((name) => [name, column(name, past.slice(-1))[0]])),
    };
  }

  async forecast(origin, current) {
    const chosen = [this.main.model, this.other.model].filter((model, i, all) => model && all.indexOf(model) === i);
    this.note.busy("Forecasting");
    try {
      const forecasts = await Promise.all(chosen.map(async (model, i) => {
        const { responses: [found], version } = await predict(model.name, [this.input(model, origin)]);
        return { ...found, version, name: model.name, style: STYLES[i], times: found.dates.map(toMs) };
      }));
      if (!current()) return;
      this.note.clear();
      const warnings = forecasts.flatMap((each) => each.warnings);
      if (warnings.length) this.note.say(warnings.join(" "));
      this.show(origin, forecasts);
    } catch (error) {
      if (!current()) return;
      const final = error.status === 422 || !error.code; // the same request would fail again
      this.result.hidden = final;
      this.note.error(error, final ? null : () => this.ask());
    }
  }

  show(origin, forecasts) {
    this.result.hidden = false;
    const { reads } = this.main.model;
    const from = Math.max(0, origin - Math.max(2 * reads.window, 4 * reads.horizon));
    const end = forecasts[0].times.at(-1);
    const shown = this.rows.slice(from).filter(({ time }) => time <= end);
    const before = this.rows.slice(from, origin).map(({ time, value }) => [time, value]);
    const truth = new Map(this.rows.slice(origin).map(({ time, value }) => [time, value]));
    const after = shown.filter(({ time }) => truth.has(time)).map(({ time, value }) => [time, value]);
    const several = forecasts.length > 1;
    const named = (each) => (several ? `${each.name}` : "forecast");
    this.chart.update({
      lines: [
        { name: "history", style: "history", points: before },
        ...(after.length ? [{ name: "truth", style: "truth", points: [before.at(-1), ...after] }] : []),
        ...forecasts.map((each) => ({ name: named(each), style: each.style, points: each.times.map((t, i) => [t, each.forecast[i]]) })),
      ],
      bands: forecasts.flatMap((each) => Object.entries(each.intervals).sort((a, b) => b[0] - a[0]).map(([level, { low, high }], n) => ({
        name: `${several ? `${each.name} ` : ""}${percent(Number(level))} interval`,
        style: `${each.style} level-${n}`,
        points: each.times.map((t, i) => [t, low[i], high[i]]),
      }))),
      marker: [this.rows[origin - 1].time, "origin"],
    });
    this.showErrors(forecasts, truth);
    this.tables.replaceChildren(...forecasts.map((each) => {
      const levels = Object.keys(each.intervals).sort();
      const head = ["Date", "Forecast", ...levels.map((level) => `${percent(Number(level))} interval`), "Truth"];
      return details(`Values of ${each.name}, version ${each.version}`, table(`Forecast of ${each.name}`, head, each.times.map((t, i) => [
        timeText(t), number(each.forecast[i]),
        ...levels.map((level) => `${number(each.intervals[level].low[i])} to ${number(each.intervals[level].high[i])}`),
        number(truth.get(t) ?? null)])));
    }));
  }

  showErrors(forecasts, truth) {
    this.errors.replaceChildren();
    const rows = forecasts.map((each) => {
      const known = each.times.map((t, i) => [truth.get(t) ?? null, i]).filter(([value]) => value !== null);
      if (!known.length) return null;
      const inside = Object.entries(each.intervals).sort().map(([level, { low, high }]) =>
        `${known.filter(([v, i]) => low[i] <= v && v <= high[i]).length} of ${known.length} in the ${percent(Number(level))} interval`);
      return h("li", {}, `${each.name}: mean absolute error ${number(mean(known.map(([v, i]) => Math.abs(v - each.forecast[i]))))} over ${known.length} steps; ${inside.join(", ")}`);
    }).filter(Boolean);
    this.errors.append(rows.length
      ? h("ul", { class: "figures" }, rows)
      : h("p", { class: "muted" }, this.origin.disabled
        ? "The series is no longer than the window of the model, so the origin cannot move back."
        : "Move the origin back to compare a forecast with what came after it."));
  }
}
