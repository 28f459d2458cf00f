// Read a CSV of a series: its columns, its dates, its numbers, and what is wrong, by line.

export const MAX_PROBLEMS = 8;
const MAX_ROWS = 200_000;
const MISSING = new Set(["", "na", "n/a", "nan", "null", "none", "-"]);
const ISO = /^(\d{4})([-/])(\d{1,2})\2(\d{1,2})(?:[T ](\d{1,2}):(\d{2})(?::(\d{2})(?:[.,]\d+)?)?)?\s*(?:Z|[+-]\d\d:?\d\d)?$/;
const PARTS = /^(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?:[T ,]+(\d{1,2}):(\d{2})(?::(\d{2}))?)?$/;

export const DATE_FORMATS = [
  ["iso", "2026-11-30 or 2026/11/30"],
  ["dmy", "30.11.2026 or 30/11/2026"],
  ["mdy", "11/30/2026"],
];

/** Split a text into rows of cells: {header, rows: [{line, cells}], delimiter, problems}. */
export function parse(text) {
  text = text.replace(/^\uFEFF/, "");
  const first = text.slice(0, text.indexOf("\n") + 1 || undefined);
  const delimiter = [",", ";", "\t"].reduce((best, each) =>
    first.split(each).length > first.split(best).length ? each : best);
  const rows = [];
  const problems = [];
  let [cells, cell, quoted, line, begin] = [[], "", false, 1, 1];
  const endRow = () => {
    cells.push(cell);
    if (cells.length > 1 || cells[0].trim()) rows.push({ line: begin, cells: cells.map((each) => each.trim()) });
    [cells, cell, begin] = [[], "", line];
  };
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === "\n") line++;
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[i + 1] === '"') cell += text[++i];
      else quoted = false;
    } else if (c === '"' && cell.trim() === "") [quoted, cell] = [true, ""];
    else if (c === delimiter) {
      cells.push(cell);
      cell = "";
    } else if (c === "\n") endRow();
    else if (c !== "\r") cell += c;
  }
  if (quoted) problems.push({ line: begin, text: "a quotation mark is not closed" });
  if (cell || cells.length) endRow();
  const header = rows.shift()?.cells ?? [];
  const whole = rows.filter(({ line: at, cells: found }) => {
    if (found.length === header.length) return true;
    problems.push({ line: at, text: `found ${found.length} cells; expected ${header.length}, as in the header` });
    return false;
  });
  if (rows.length === 0) problems.push({ line: 1, text: "found no rows; expected a header and a row for each date" });
  if (whole.length > MAX_ROWS) problems.push({ line: whole[MAX_ROWS].line, text: `found ${whole.length} rows; this page reads ${MAX_ROWS}` });
  return { header, rows: whole.slice(0, MAX_ROWS), delimiter, problems };
}

/** A date as milliseconds of UTC, or NaN. */
export function readDate(text, format) {
  let parts;
  if (format === "iso") {
    const found = ISO.exec(text);
    if (!found) return NaN;
    parts = [found[1], ...found.slice(3)];
  } else {
    const found = PARTS.exec(text);
    if (!found) return NaN;
    const [, a, , b, year, ...time] = found;
    parts = format === "dmy" ? [year, b, a, ...time] : [year, a, b, ...time];
  }
  const [year, month, day, hour, minute, second] = parts.map((part) => Number(part ?? 0));
  const ms = Date.UTC(year, month - 1, day, hour, minute, second);
  const date = new Date(ms);
  return date.getUTCMonth() === month - 1 && date.getUTCDate() === day && hour < 24 && minute < 60 ? ms : NaN;
}

/** A number, null for a missing value, or NaN. */
export function readNumber(text, decimal = ".") {
  if (MISSING.has(text.toLowerCase())) return null;
  const plain = decimal === "," ? text.replace(/\./g, "").replace(",", ".") : text.replace(/(?<=\d),(?=\d{3}\b)/g, "");
  return plain === "" ? NaN : Number(plain);
}

/** The decimal sign of a column: a comma only where that explains more cells. */
export function decimalOf(cells) {
  const readable = (decimal) => cells.filter((cell) => !Number.isNaN(readNumber(cell, decimal))).length;
  return readable(",") > readable(".") || cells.some((cell) => /^-?\d+,\d{1,2}$/.test(cell)) ? "," : ".";
}

/** The likely columns and date format: {date, value, format}; -1 where there is none. */
export function detect({ header, rows }) {
  const sample = rows.slice(0, 200);
  const column = (i) => sample.map(({ cells }) => cells[i]);
  const share = (cells, test) => (cells.length ? cells.filter(test).length / cells.length : 0);
  let best = { score: 0, date: -1, format: "iso" };
  header.forEach((_, i) => {
    for (const [format] of DATE_FORMATS) {
      const score = share(column(i), (cell) => !Number.isNaN(readDate(cell, format)));
      if (score > best.score) best = { score, date: i, format };
    }
  });
  const date = best.score > 0.5 ? best.date : -1;
  const numeric = header.findIndex((_, i) => {
    if (i === date) return false;
    const cells = column(i).filter((cell) => readNumber(cell) !== null);
    const decimal = decimalOf(cells);
    return share(cells, (cell) => Number.isFinite(readNumber(cell, decimal))) > 0.5;
  });
  return { date, value: numeric, format: best.format };
}

/** The series of two columns, in order of time: {rows: [{line, time, value, cells}], problems}. */
export function toSeries(table, { date, value, format }) {
  const decimal = decimalOf(table.rows.slice(0, 1000).map(({ cells }) => cells[value]));
  const problems = [...table.problems];
  const rows = [];
  const lines = new Map();
  for (const { line, cells } of table.rows) {
    const time = readDate(cells[date], format);
    const found = readNumber(cells[value], decimal);
    if (Number.isNaN(time)) {
      const expected = DATE_FORMATS.find(([name]) => name === format)[1];
      problems.push({ line, text: `found \u201c${cells[date].slice(0, 40)}\u201d; expected a date such as ${expected}` });
    } else if (Number.isNaN(found) || found === Infinity || found === -Infinity) {
      problems.push({ line, text: `found \u201c${cells[value].slice(0, 40)}\u201d; expected a number` });
    } else if (lines.has(time)) {
      problems.push({ line, text: `has the date of line ${lines.get(time)}` });
    } else {
      lines.set(time, line);
      rows.push({ line, time, value: found, cells });
    }
  }
  rows.sort((a, b) => a.time - b.time);
  problems.sort((a, b) => a.line - b.line);
  return { rows, problems };
}
