// Elements and SVG from data. Data becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";
const VIRIDIS = [[68, 1, 84], [71, 45, 123], [59, 82, 139], [44, 114, 142], [33, 145, 140],
  [40, 174, 128], [94, 201, 98], [173, 220, 48], [253, 231, 37]];
const SERIES = ["#2b8fd0", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"];
const MAX_LABELLED = 150;
const MJD_OF_1970 = 40587;

export function node(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(key, String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) made.append(child instanceof Node ? child : String(child));
  }
  return made;
}

export const known = (value) => typeof value === "number" && Number.isFinite(value);

export function dateOfMjd(mjd) {
  return new Date((mjd - MJD_OF_1970) * 86400000);
}

export function clockText(date, seconds = true) {
  return date.toISOString().slice(11, seconds ? 19 : 16);
}

export function short(value) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  return size >= 1 || size === 0 ? value.toFixed(2) : value.toPrecision(3);
}

// Value and error to two digits of the error.
export function measured(value, error) {
  if (!known(value)) return "–";
  if (!known(error) || error <= 0) return short(value);
  const digits = Math.min(8, Math.max(0, 1 - Math.floor(Math.log10(error))));
  return `${value.toFixed(digits)} ± ${error.toFixed(digits)}`;
}

function colour(fraction) {
  const place = Math.min(1, Math.max(0, fraction)) * (VIRIDIS.length - 1);
  const low = Math.min(VIRIDIS.length - 2, Math.floor(place));
  const mixed = VIRIDIS[low].map((v, i) => Math.round(v + (place - low) * (VIRIDIS[low + 1][i] - v)));
  return `rgb(${mixed.join(",")})`;
}

function spacing(pixels) {
  let least = Infinity;
  for (let i = 0; i < pixels.length; i++) {
    for (let j = 0; j < i; j++) {
      const distance = Math.hypot(pixels[i].x - pixels[j].x, pixels[i].y - pixels[j].y);
      if (distance > 0) least = Math.min(least, distance);
    }
  }
  return Number.isFinite(least) ? least : 1;
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// One quantity of all pixels at their places on the sky; longitude grows to the left.
export function footprint(pixels, key, title, unit) {
  const values = pixels.map((p) => p[key]).filter(known);
  if (!values.length) return null;
  const milli = unit === "K" && Math.max(...values) < 0.1;
  const scale = milli ? 1000 : 1;
  const shownUnit = milli ? "mK" : unit;
  let low = Math.min(...values), high = Math.max(...values);
  if (high - low < 1e-9 * Math.abs(high)) { low *= 0.95; high *= 1.05; }
  const step = 44 / spacing(pixels), radius = 20;
  const xs = pixels.map((p) => -p.x * step), ys = pixels.map((p) => -p.y * step);
  const [left, top] = [Math.min(...xs) - 24, Math.min(...ys) - 24];
  const size = [Math.max(...xs) + 24 - left, Math.max(...ys) + 24 - top];
  const picture = draw("svg", { viewBox: [left, top, ...size].join(" "), role: "img", "aria-label": `${title} on the array` });
  pixels.forEach((pixel, i) => picture.append(dot(pixel, key, [xs[i], ys[i]], radius, [low, high], scale, shownUnit, pixels.length)));
  const steps = 24;
  const ramp = draw("svg", { viewBox: `0 0 ${steps} 1`, preserveAspectRatio: "none", "shape-rendering": "crispEdges", "aria-hidden": "true" },
    Array.from({ length: steps }, (_, i) => draw("rect", { x: i, width: 1.02, height: 1, fill: colour(i / (steps - 1)) })));
  return node("div", { class: "footprint" },
    node("h3", {}, quantity(title), `: median ${short(median(values) * scale)} ${shownUnit}`), picture,
    node("div", { class: "bar" }, short(low * scale), ramp, `${short(high * scale)} ${shownUnit}`));
}

function dot(pixel, key, [x, y], radius, [low, high], scale, unit, count) {
  const value = pixel[key];
  const fraction = known(value) ? (value - low) / (high - low) : NaN;
  const good = known(value) && pixel.valid;
  const words = `pixel ${pixel.pixel}: ${known(value) ? `${short(value * scale)} ${unit}` : "no value"}`;
  const parts = [draw("title", {}, pixel.valid ? words : `${words}; not valid: ${pixel.reason || "no reason given"}`),
    draw("circle", good ? { cx: x, cy: y, r: radius, fill: colour(fraction) } : { cx: x, cy: y, r: radius, class: "pixel-dead" })];
  if (count <= MAX_LABELLED) {
    const ink = good ? (fraction > 0.55 ? "#000" : "#fff") : "currentColor";
    parts.push(draw("text", { x, y: y + 4.5, "text-anchor": "middle", "font-size": 13, fill: ink }, good ? short(value * scale) : "×"));
  }
  return draw("g", {}, parts);
}

// "T_sys*" as T with an index and a star.
export function quantity(name) {
  const [head, index] = name.split("_");
  if (!index) return node("span", {}, name);
  const star = index.endsWith("*");
  return node("span", {}, head, node("sub", {}, star ? index.slice(0, -1) : index), star ? "*" : null);
}

const STEPS = [5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 7200, 14400, 43200];

function ticks(low, high, room) {
  const step = (STEPS.find((s) => (high - low) * 1440 / s <= room) ?? 86400) / 1440;
  const found = [];
  for (let t = Math.ceil(low / step) * step; t <= high + 1e-9; t += step) found.push(t);
  return [found, step];
}

function niceStep(span, room) {
  const raw = span / room, power = 10 ** Math.floor(Math.log10(raw));
  return power * ([1, 2, 5].find((s) => s * power >= raw) ?? 10);
}

// One quantity against time, with errors where there are some, one colour per band and receiver.
export function trendChart(all, key, name, unit, width) {
  const points = all.filter((p) => known(p[key]));
  const height = 150, left = 40, right = 12, top = 8, bottom = 34;
  const error = (p) => (known(p[`${key}_error`]) ? p[`${key}_error`] : 0);
  const times = all.map((p) => p.mjd);
  let first = Math.min(...times), last = Math.max(...times);
  const margin = Math.max(0.04 * (last - first), 0.004);
  first -= margin; last += margin;
  const [lowest, highest] = range(points, (p) => [p[key] - error(p), p[key] + error(p)]);
  const x = (t) => left + (width - left - right) * (t - first) / (last - first);
  const y = (v) => height - bottom - (height - top - bottom) * (v - lowest) / (highest - lowest);
  const picture = draw("svg", { width, height, role: "img", "aria-label": `${name} against time` });
  const step = niceStep(highest - lowest, 4);
  for (let v = Math.ceil(lowest / step) * step; v <= highest; v += step) {
    picture.append(draw("line", { class: "axis", x1: left, x2: width - right, y1: y(v), y2: y(v) }),
      draw("text", { class: "axis-text", x: left - 6, y: y(v) + 4, "text-anchor": "end" }, String(+v.toFixed(4))));
  }
  const [places, days] = ticks(first, last, Math.max(2, (width - left) / 70));
  for (const t of places) {
    const text = days >= 1 ? dateOfMjd(t).toISOString().slice(5, 10) : clockText(dateOfMjd(t + 1e-6), false);
    picture.append(draw("line", { class: "axis", x1: x(t), x2: x(t), y1: height - bottom, y2: height - bottom + 4 }),
      draw("text", { class: "axis-text", x: Math.min(x(t), width - 18), y: height - bottom + 16, "text-anchor": "middle" }, text));
  }
  picture.append(draw("text", { class: "axis-text", x: width - right, y: height - 4, "text-anchor": "end" },
    `UT, ${dateOfMjd(Math.max(...times)).toISOString().slice(0, 10)}`));
  const names = [...new Set(points.map(placeOf))];
  names.forEach((place, i) => series(picture, points.filter((p) => placeOf(p) === place), key, unit, SERIES[i % SERIES.length], x, y));
  const legend = node("p", { class: "note legend" }, names.map((place, i) => {
    const newest = points.filter((p) => placeOf(p) === place && p.valid).at(-1);
    const dot = node("span", {}, "● ");
    dot.style.color = SERIES[i % SERIES.length];
    return node("span", {}, dot, `${place} ${newest ? measured(newest[key], newest[`${key}_error`]) : "–"}  `);
  }));
  return node("div", { class: "trend" }, node("h3", {}, quantity(name), ` [${unit}]`), picture, legend);
}

const placeOf = (p) => `${p.band} r${p.receiver}`.trim();

// What the axis holds: all values with their errors, and never less than a tenth of their size.
function range(points, ends) {
  const low = Math.min(...points.map((p) => ends(p)[0])), high = Math.max(...points.map((p) => ends(p)[1]));
  const middle = (low + high) / 2, half = Math.max(0.58 * (high - low), 0.05 * Math.abs(middle), 1e-6);
  return [low >= 0 ? Math.max(0, middle - half) : middle - half, middle + half];
}

function series(picture, points, key, unit, ink, x, y) {
  const line = points.filter((p) => p.valid).map((p) => `${x(p.mjd)},${y(p[key])}`).join(" ");
  picture.append(draw("polyline", { points: line, fill: "none", stroke: ink, "stroke-opacity": 0.45 }));
  for (const point of points) {
    const error = point[`${key}_error`];
    const words = `${point.project} scan ${point.scan} ${placeOf(point)}: ${measured(point[key], error)} ${unit}${point.valid ? "" : ", not valid"}`;
    const parts = [draw("title", {}, words)];
    if (known(error)) {
      const ends = { y1: y(point[key] - error), y2: y(point[key] + error) };
      parts.push(draw("line", { x1: x(point.mjd), x2: x(point.mjd), ...ends, stroke: ink }));
    }
    parts.push(draw("circle", { cx: x(point.mjd), cy: y(point[key]), r: 3.4, stroke: ink, fill: point.valid ? ink : "none" }));
    picture.append(draw("g", {}, parts));
  }
}
