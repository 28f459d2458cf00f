// Drawings in QuickDraw's raw schema: a stroke is [xs, ys, times in ms]. Pure functions.

export const SIZE = 480; // height and width of the canvas, in units of the coordinates

export const countPoints = (strokes) => strokes.reduce((sum, [xs]) => sum + xs.length, 0);

/** Whether there is a line: two different points. */
export const hasInk = (strokes) =>
  strokes.some(([xs, ys]) => xs.some((x, i) => x !== xs[0] || ys[i] !== ys[0]));

/** The longer side of a drawing. */
export const extent = (strokes) => Math.max(...[0, 1].map((axis) => {
  const values = strokes.flatMap((stroke) => stroke[axis]);
  return Math.max(...values) - Math.min(...values);
}));

/** The drawing without each of its strokes in turn. */
export const leaveOneOut = (strokes) =>
  strokes.map((_, left) => strokes.filter((__, i) => i !== left));

/** One line of QuickDraw's ndjson. */
export function toNdjson(strokes, word, recognized, now = new Date()) {
  const random = crypto.getRandomValues(new Uint32Array(2));
  const line = {
    word,
    countrycode: "",
    timestamp: `${now.toISOString().replace("T", " ").replace(/Z$/, "")} UTC`,
    recognized,
    key_id: String(random[0]).padStart(10, "0") + String(random[1] % 1e6).padStart(6, "0"),
    drawing: strokes,
  };
  return `${JSON.stringify(line)}\n`;
}

/** The drawing as a file of its own. */
export function toSvg(strokes) {
  const lines = strokes.map(([xs, ys]) => {
    const path = xs.map((x, i) => `${i ? "L" : "M"}${x} ${ys[i]}`).join("");
    return `<path d="${path}${xs.length === 1 ? "h0.01" : ""}"/>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${SIZE} ${SIZE}" fill="none" ` +
    `stroke="#1d1d1f" stroke-width="5" stroke-linecap="round" stroke-linejoin="round">` +
    `${lines.join("")}</svg>\n`;
}

/** Milliseconds from the start of a replay to each point; pauses are shortened. */
export function replayTimes(strokes, longestPause = 400) {
  let last = null;
  let clock = 0;
  return strokes.map(([, , times]) => times.map((time) => {
    if (last !== null) clock += Math.max(0, Math.min(time - last, longestPause));
    last = time;
    return clock;
  }));
}
