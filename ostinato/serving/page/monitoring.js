// The tab Monitoring: the last reports of each model, their metrics over time, their figures.

import { request } from "./api.js";
import { LineChart, timeText } from "./chart.js";
import { details, h, number, select, setOptions, field, table } from "./dom.js";
import { empty, Note } from "./panel.js";

const STATUS = {
  ok: ["good", "nothing has changed"],
  warning: ["warn", "something has changed"],
  retrain: ["bad", "the model is trained again"],
};

export const create = (panel) => new MonitoringTab(panel);

const title = (name) => name.replaceAll("_", " ");

const withUnit = (value, unit) => (value === null || value === undefined ? "\u2013" : `${number(value)}${unit ? `\u00a0${unit}` : ""}`);

class MonitoringTab {
  constructor(panel) {
    this.panel = panel;
    this.note = new Note();
    this.model = select([], { onchange: () => this.chooseModel() });
    this.time = select([], { onchange: () => this.chooseTime() });
    this.report = h("div", { class: "stack" });
    this.urls = [];
    this.element = h("div", { class: "stack" },
      h("div", { class: "card" }, h("div", { class: "fields" }, field("Model", this.model), field("Report", this.time)),
        h("div", { class: "row" }, h("button", { type: "button", onclick: () => this.load() }, "Look again")), this.note.element),
      this.report);
    panel.replaceChildren(this.note.element);
    this.load();
  }

  async load() {
    this.note.busy("Asking for reports");
    try {
      const { reports } = await (await request("/v1/monitoring")).json();
      this.note.clear();
      if (!reports.length) return this.nothing("There is no report yet");
      this.reports = reports;
      if (!this.element.isConnected) {
        this.element.firstChild.append(this.note.element);
        this.panel.replaceChildren(this.element);
      }
      const names = [...new Set(reports.map((each) => each.model))];
      setOptions(this.model, names.map((name) => [name, name]));
      this.chooseModel();
    } catch (error) {
      if (error.status === 404) this.nothing("This server shows no reports");
      else this.note.error(error, () => this.load());
    }
  }

  nothing(title) {
    this.panel.replaceChildren(empty(title,
      h("p", {}, "The monitor compares what the server was asked with what the model was trained on. It reads the server\u2019s log, so start the server with one, and let the monitor run on a schedule or once:"),
      h("pre", { class: "command", tabindex: "0" }, h("code", {}, "python -m ostinato serve MODEL --log-folder log\npython -m flows.monitor")),
      h("div", { class: "row" }, h("button", { type: "button", onclick: () => this.load() }, "Look again")), this.note.element));
  }

  chooseModel() {
    const own = this.reports.filter((each) => each.model === this.model.value);
    setOptions(this.time, own.map((each) => [each.time, `${timeText(Date.parse(each.time))} UTC`]));
    this.chooseTime();
  }

  chooseTime() {
    const report = this.reports.find((each) => each.model === this.model.value && each.time === this.time.value);
    const [style, meaning] = STATUS[report.status] ?? ["warn", ""];
    for (const url of this.urls.splice(0)) URL.revokeObjectURL(url);
    const newest = this.reports.find((each) => each.model === report.model); // has the course of all
    const charts = newest.series.filter((each) => each.points.length > 1).map((each) => this.chart(each, newest));
    this.report.replaceChildren(
      h("div", { class: "card" },
        h("div", { class: "row" }, h("h2", { class: "grow" }, report.model), h("span", { class: `badge ${style}` }, `${report.status}: ${meaning}`)),
        h("p", {}, report.summary),
        h("p", { class: "muted small" }, `Version ${report.version}, ${report.requests.toLocaleString("en")} requests, ${timeText(Date.parse(report.time))} UTC.`),
        table(`Metrics of ${report.model}`, ["Metric", "Value", "Interval", "Threshold", "About"], report.metrics.map((each) => [
          title(each.name), withUnit(each.value, each.unit),
          each.low === null || each.low === undefined ? "\u2013" : `${number(each.low)} to ${number(each.high)}`,
          withUnit(each.threshold, each.unit), each.text ?? ""]))),
      ...(charts.length ? [h("div", { class: "card" }, h("h2", {}, "Over the last reports"), h("div", { class: "grid" }, charts))] : []),
      ...(report.figures.length ? [h("div", { class: "card" }, h("h2", {}, "Figures"), h("div", { class: "grid" }, report.figures.map((each) => this.figure(each))))] : []));
  }

  chart({ name, points }, report) {
    const chart = new LineChart(title(name), 180);
    const threshold = report.metrics.find((each) => each.name === name)?.threshold ?? null;
    chart.update({
      lines: [{ name: title(name), style: "forecast", points: points.map(([time, value]) => [Date.parse(time), value]) }],
      levels: threshold === null ? [] : [{ value: threshold, text: "threshold" }],
    });
    const rows = points.map(([time, value]) => [timeText(Date.parse(time)), number(value)]);
    return h("div", {}, h("h3", {}, title(name)), chart.element, details("Values", table(title(name), ["Time (UTC)", title(name)], rows)));
  }

  /** A figure; it is fetched, because an image's own request would not carry the key. */
  figure({ title, url }) {
    const place = h("figure", { class: "figure" }, h("figcaption", {}, title));
    const note = new Note();
    const load = async () => {
      try {
        const image = URL.createObjectURL(await (await request(url)).blob());
        this.urls.push(image);
        place.prepend(h("img", { src: image, alt: title }));
      } catch (error) {
        note.error(error, load);
        place.prepend(note.element);
      }
    };
    load();
    return place;
  }
}
