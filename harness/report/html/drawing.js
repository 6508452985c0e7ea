// Elements, curves, pictures. Text is always set as text: nothing from a file is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

function power(exponent) {
  return String(exponent).replace(/[-\d]/g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
}

// Powers of ten that a logarithmic axis from `low` to `high` is marked at, seven at most.
function decades(low, high) {
  const step = Math.max(1, Math.ceil((high - low) / 6));
  const marks = [];
  for (let at = Math.ceil(low); at <= high; at += step) marks.push(at);
  return marks;
}

// Error by layer, on a logarithmic axis, with what rounding explains and what passes.
// points: {label, error, floor, limit, state}
function drift(points, title, width, open) {
  const height = 220, left = 48, right = 76, top = 12, bottom = 28;
  const values = points.flatMap((p) => [p.error, p.floor, p.limit]).filter((v) => v > 0 && Number.isFinite(v));
  if (!values.length) return element("p", { class: "where" }, "No figures to draw.");
  const low = Math.floor(Math.log10(Math.min(...values)) - 0.1), high = Math.ceil(Math.log10(Math.max(...values)) + 0.1);
  const x = (place) => left + (points.length === 1 ? 0.5 : place / (points.length - 1)) * (width - left - right);
  const y = (value) => {
    const depth = (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low);
    return height - bottom - Math.min(depth, 1) * (height - top - bottom);
  };
  const drawn = (key) => points.map((p, place) => [x(place), p[key]]).filter(([, value]) => value !== null);
  const line = (key) => drawn(key).map(([at, value], i) => `${i ? "L" : "M"}${at.toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const limit = drawn("limit");
  const band = limit.length
    ? `${line("limit")}L${limit.at(-1)[0].toFixed(1)} ${height - bottom}L${limit[0][0].toFixed(1)} ${height - bottom}Z` : "";
  const every = Math.ceil(points.length / ((width - left - right) / 32));
  const ends = ["limit", "floor", "error"].map((key) => [key, drawn(key).at(-1)]).filter(([, end]) => end);
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, class: "drift", role: "img", "aria-label": title },
    svg("path", { d: band, class: "passes" }),
    decades(low, high).map((at) => [
      svg("line", { x1: left, x2: width - right, y1: y(10 ** at), y2: y(10 ** at), class: "rule" }),
      svg("text", { x: left - 6, y: y(10 ** at) + 4, class: "end" }, `10${power(at)}`)]).flat(),
    points.map((p, place) => place % every ? null : svg("text", { x: x(place), y: height - 8, class: "middle" }, p.label)),
    ["floor", "limit", "error"].map((key) => svg("path", { d: line(key), class: key })),
    points.map((p, place) => p.error === null ? null : point(x(place), y(p.error), p, open)),
    spread(ends.map(([key, [at, value]]) => ({ key, at, y: y(value) }))).map(({ key, at, y: level }) =>
      svg("text", { x: at + 10, y: level + 4, class: `name ${key}` }, key === "floor" ? "noise floor" : key)));
}

// Names that would lie on each other, apart.
function spread(names) {
  const sorted = names.sort((a, b) => a.y - b.y);
  sorted.forEach((name, i) => { if (i) name.y = Math.max(name.y, sorted[i - 1].y + 13); });
  return sorted;
}

function point(x, y, p, open) {
  const shape = p.state === "fail"
    ? svg("path", { d: `M${x - 4} ${y - 4}l8 8m0 -8l-8 8`, class: "dot fail" })
    : svg("circle", { cx: x, cy: y, r: 3.2, class: `dot ${p.state}` });
  const said = `${p.label}: error ${amount(p.error)}, limit ${amount(p.limit)}`;
  return svg("g", { class: "point", onclick: () => open(p) },
    svg("title", {}, said), svg("circle", { cx: x, cy: y, r: 9, class: "touch" }), shape);
}

// How many elements differ by how many noise floors.
function histogram(picture) {
  const width = 400, height = 120, bottom = 22, left = 4;
  const counts = picture.histogram, most = Math.max(...counts, 1);
  const bar = (width - 2 * left) / counts.length;
  const x = (exponent) => left + (exponent - picture.first) / picture.step * bar;
  const tall = (count) => count ? Math.max(2, Math.log1p(count) / Math.log1p(most) * (height - bottom - 12)) : 0;
  const last = picture.first + picture.step * counts.length;
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "histogram", role: "img",
    "aria-label": "elements by difference, in noise floors" },
    counts.map((count, i) => count ? svg("rect", {
      x: left + i * bar, width: Math.max(bar - 1, 1), y: height - bottom - tall(count), height: tall(count),
      class: picture.first + i * picture.step >= 0.6 ? "above" : "below" }, svg("title", {}, `${count} elements`)) : null),
    svg("line", { x1: x(0), x2: x(0), y1: 4, y2: height - bottom, class: "unit" }),
    svg("text", { x: x(0) + 4, y: 12, class: "unit" }, "noise floor"),
    decades(picture.first + 0.5, last - 0.5).map((at) => svg("text", { x: x(at), y: height - 6, class: "middle" }, `10${power(at)}`)));
}

const INFERNO = [[0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164]];

function shade(depth) {
  const at = depth * (INFERNO.length - 1), from = Math.min(Math.floor(at), INFERNO.length - 2);
  return INFERNO[from].map((value, i) => Math.round(value + (at - from) * (INFERNO[from + 1][i] - value)));
}

// A map of |port - golden|, a square for each pixel: see Map in result.py for what the bytes say.
function canvasOf(map) {
  const [rows, columns] = map.size, pixels = bytes(map.pixels);
  const canvas = element("canvas", { width: columns, height: rows, role: "img",
    "aria-label": `|port - golden|, ${map.rows} by ${map.columns}` });
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
  pixels.forEach((code, place) => {
    const colour = code === 0 ? [128, 128, 128, 60] : code === 255 ? [0, 220, 220, 255]
      : [...(code === 1 ? INFERNO[0] : shade((code - 2) / 252)), 255];
    image.data.set(colour.length === 4 ? colour : [...colour, 255], 4 * place);
  });
  context.putImageData(image, 0, 0);
  canvas.style.aspectRatio = `${columns} / ${Math.max(rows, columns / 4)}`;
  return canvas;
}

// Margins of earlier runs and of this one, the limit as a line.
function sparkline(values) {
  const width = 400, height = 56, pad = 6;
  const known = values.filter((v) => v > 0 && Number.isFinite(v)).map(Math.log10);
  const low = Math.min(...known, -0.5), high = Math.max(...known, 0.3);
  const x = (place) => pad + place / Math.max(values.length - 1, 1) * (width - 2 * pad);
  const y = (value) => height - pad - (Math.log10(Math.min(Math.max(value, 10 ** low), 10 ** high)) - low) / (high - low) * (height - 2 * pad);
  const there = values.map((value, place) => [place, value]).filter(([, value]) => value !== null);
  const path = there.map(([place, value], i) => `${i ? "L" : "M"}${x(place).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "sparkline", role: "img", "aria-label": "error over limit, run by run" },
    svg("line", { x1: 0, x2: width, y1: y(1), y2: y(1), class: "limit" }),
    svg("path", { d: path, class: "error" }),
    there.slice(-1).map(([place, value]) => svg("circle", { cx: x(place), cy: y(value), r: 3.5, class: value > 1 ? "fail" : "pass" })));
}
