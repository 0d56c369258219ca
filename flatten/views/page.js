// Draws a report: figures, layers, a treemap with a search, and lists.
// The columns of the tree are described in page.py.

const $ = (id) => document.getElementById(id);
const about = JSON.parse($("data").textContent);
const DIRECTORY = 1;  // a kind of path
const TITLE = 17, LEAST = 3, DUST = 36;  // pixels: a title's height, a cell's least side, its least area
const LEAD = 0.95;  // a child with this share of a directory shares the directory's title
const ROWS = 25;  // rows of a list before "Show all"

// --- words

function bytes(size) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (size >= 1000 && at < units.length - 1) { size /= 1024; at += 1; }
  return (at && size < 100 ? size.toFixed(1) : Math.round(size)) + " " + units[at];
}
const count = (number, noun) =>
  number.toLocaleString("en") + (noun ? ` ${noun}${number === 1 ? "" : "s"}` : "");
const percent = (part, whole) => (whole ? (100 * part / whole) : 0).toFixed(1) + " %";

function element(tag, text, properties) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return Object.assign(made, properties || {});
}

function pressed(selector, isOn) {
  for (const button of document.querySelectorAll(selector)) {
    button.setAttribute("aria-pressed", isOn(button));
  }
}

// --- the tree

let tree;  // its columns, and values computed from them

async function inflate(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function unpack(buffer, total) {
  const low = new Uint32Array(buffer, 0, total);
  const high = new Uint32Array(buffer, 4 * total, total);
  const depths = new Uint16Array(buffer, 8 * total, total);
  const layers = new Uint16Array(buffer, 10 * total, total);
  const kinds = new Uint8Array(buffer, 12 * total, total);
  const names = new TextDecoder().decode(new Uint8Array(buffer, 13 * total)).split("\0");
  // Node 0 is the root; node i + 1 is path i.
  const sizes = new Float64Array(total + 1), parents = new Int32Array(total + 1);
  const files = new Uint32Array(total + 1), ends = new Int32Array(total + 1);
  const main = new Int32Array(total + 1), largest = new Float64Array(total + 1);
  const trail = [0];
  for (let i = 0; i < total; i++) {
    sizes[i + 1] = high[i] * 4294967296 + low[i];
    files[i + 1] = kinds[i] === 0 ? 1 : 0;
    trail.length = Math.min(depths[i] + 1, trail.length);
    parents[i + 1] = trail[trail.length - 1];
    if (kinds[i] === DIRECTORY) trail.push(i + 1);
  }
  for (let node = total; node > 0; node--) {
    if (kinds[node - 1] !== DIRECTORY) main[node] = node;
    const parent = parents[node], size = kinds[node - 1] === DIRECTORY ? largest[node] : sizes[node];
    if (size > largest[parent]) {  // the largest file gives a directory its colour
      largest[parent] = size;
      main[parent] = main[node];
    }
    sizes[parent] += sizes[node];
    files[parent] += files[node];
    ends[node] = Math.max(ends[node], node + 1);
    ends[parent] = Math.max(ends[parent], ends[node]);
  }
  ends[0] = total + 1;
  return { names, layers, kinds, sizes, parents, files, ends, main, total, sorted: new Map() };
}

const isDirectory = (node) => node === 0 || tree.kinds[node - 1] === DIRECTORY;
const name = (node) => node === 0 ? "/" : tree.names[node - 1];
const layer = (node) => node === 0 ? 0 : tree.layers[node - 1];

function path(node) {
  const parts = [];
  for (; node; node = tree.parents[node]) parts.push(name(node));
  return "/" + parts.reverse().join("/");
}

function children(node) {  // those that are not empty, the largest first
  let found = tree.sorted.get(node);
  if (!found) {
    found = [];
    for (let child = node + 1; child < tree.ends[node]; child = tree.ends[child]) {
      if (tree.sizes[child] > 0) found.push(child);
    }
    found.sort((a, b) => tree.sizes[b] - tree.sizes[a]);
    tree.sorted.set(node, found);
  }
  return found;
}

function find(wanted) {  // the node of a path and true, or the nearest one above it and false
  let node = 0;
  for (const part of wanted.split("/").filter((part) => part && part !== ".")) {
    let next = 0;
    for (let child = node + 1; child < tree.ends[node]; child = tree.ends[child]) {
      if (name(child) === part) { next = child; break; }
    }
    if (!next) return [node, false];
    node = next;
  }
  return [node, true];
}

// --- colours: a mode has a category for each file, and a colour for each category

const TYPES = [  // [category, hue, saturation, ends of names]
  ["libraries", 212, 55, /\.(so(\.[\d.]+)?|a|o|dylib|dll|ko|node|wasm)(\.(xz|zst|gz))?$|\.so\./],
  ["code", 265, 45, /\.(py|js|mjs|cjs|ts|tsx|jsx|pl|pm|pod|rb|php|sh|c|h|cc|cpp|hpp|go|rs|java|lua|tcl|el|css|scss|pyx|pxd|pyi|sql|cmake|m4|awk|vim)$/i],
  ["compiled code", 320, 42, /\.(pyc|pyo|class|elc|beam|mo|map)$/i],
  ["documents", 150, 40, /\.(txt|md|rst|html?|pdf|tex|man|info|\d[a-z]*)(\.gz)?$|^(README|LICENSE|COPYING|NEWS|ChangeLog|copyright|changelog)[^/]*$/i],
  ["archives", 28, 60, /\.(gz|xz|bz2|zst|zip|tar|tgz|jar|war|whl|deb|rpm|apk|egg|7z)$/i],
  ["data", 190, 45, /\.(json|ya?ml|xml|toml|ini|conf|cfg|csv|db|sqlite\d?|dat|bin|list|md5sums|pem|crt|npz|parquet|onnx|pt|tab|inc|ucm|enc)$/i],
  ["media and fonts", 350, 50, /\.(png|jpe?g|gif|svg|ico|webp|mp[34]|ogg|wav|ttf|otf|woff2?|eot|pf[ab]|afm)$/i],
  ["programs without a suffix", 48, 55, /^[^.]+(\.\d+)*$/],
];
const SIZES = [["under 16 KiB", 16384], ["16 to 256 KiB", 262144], ["256 KiB to 4 MiB", 4194304],
  ["4 to 64 MiB", 67108864], ["over 64 MiB", Infinity]];
const WASTE = { duplicate: "duplicate files", repeated: "in several layers (dive)" };

const modes = {
  layer: {
    category: (file) => layer(file),
    hsl: (number, dark) => number ? [(number * 137.5 + 190) % 360, dark ? 42 : 52, dark ? 48 : 64] : [0, 0, 60],
    legend: [],  // the timeline
  },
  type: {
    category: (file) => (TYPES.find(([, , , ends]) => ends.test(name(file))) || ["other files"])[0],
    hsl: (category, dark) => {
      const [, hue, saturation] = TYPES.find(([known]) => known === category) || ["", 0, 0];
      return [hue, saturation, dark ? 46 : 66];
    },
    legend: [...TYPES.map(([category]) => category), "other files"],
  },
  size: {
    category: (file) => SIZES.find(([, limit]) => tree.sizes[file] < limit)[0],
    hsl: (category, dark) => {
      const at = SIZES.findIndex(([known]) => known === category);
      return [215, 20 + 13 * at, dark ? 28 + 11 * at : 86 - 12 * at];
    },
    legend: SIZES.map(([category]) => category),
  },
  waste: {
    category: (file) => wasted().get(file) || "neither",
    hsl: (category, dark) => category === WASTE.duplicate ? [35, 75, dark ? 48 : 62]
      : category === WASTE.repeated ? [8, 60, dark ? 50 : 62] : [215, 8, dark ? 38 : 80],
    legend: [WASTE.repeated, WASTE.duplicate, "neither"],
  },
};

let wasteOf = null;
function wasted() {  // files that the lists of duplicates and of wasted paths name
  if (wasteOf) return wasteOf;
  wasteOf = new Map();
  const note = (wanted, why) => {
    const [node, exact] = find(wanted);
    if (exact) wasteOf.set(node, why);
  };
  for (const group of about.equal ? about.equal.largest : []) {
    for (const each of group.paths) note(each, WASTE.duplicate);
  }
  for (const row of about.efficiency.paths) note(row.path, WASTE.repeated);
  return wasteOf;
}

const isDark = () => document.documentElement.dataset.theme
  ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

function rgb([hue, saturation, lightness]) {
  const s = saturation / 100, l = lightness / 100, most = s * Math.min(l, 1 - l);
  return [0, 8, 4].map((n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (l - most * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  });
}

function ink(colour) {  // black or white: one of them has a contrast of 4.58 with any colour
  const [r, g, b] = colour.map((value) => value / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}

function paint(mode, category) {  // the colours of a category: of its area, and of text on it
  const colour = rgb(modes[mode].hsl(category, isDark()));
  return { fill: `rgb(${colour.join(" ")})`, ink: ink(colour) };
}

function painted(button, mode, category) {
  const { fill, ink } = paint(mode, category);
  button.style.background = fill;
  button.style.color = ink;
}

// --- the treemap

let top = 0, marked = 0, matches = null;
let mode = "layer", chosen = null;  // the colours, and the category that is highlighted
let cells = [];  // a directory comes before the cells in it

// Squarified: rows of cells that are as nearly square as can be.
// Reference: Bruls, Huizing, van Wijk, "Squarified Treemaps" (2000).
function layOut(nodes, total, x, y, width, height, put) {
  let at = 0;
  const scale = width * height / total;
  while (at < nodes.length && width > 0 && height > 0) {
    const side = Math.min(width, height);
    let sum = 0, end = at, worst = Infinity;
    while (end < nodes.length) {
      const next = sum + tree.sizes[nodes[end]] * scale;
      const largest = tree.sizes[nodes[at]] * scale, least = tree.sizes[nodes[end]] * scale;
      const ratio = Math.max(side * side * largest / (next * next), next * next / (side * side * least));
      if (ratio > worst) break;
      worst = ratio; sum = next; end += 1;
    }
    const thick = sum / side;
    let along = 0;
    for (; at < end; at++) {
      const length = tree.sizes[nodes[at]] * scale / thick;
      if (width >= height) put(nodes[at], x, y + along, thick, length);
      else put(nodes[at], x + along, y, length, thick);
      along += length;
    }
    if (width >= height) { x += thick; width -= thick; } else { y += thick; height -= thick; }
  }
}

function lead(node) {  // the child directory that is nearly all of a directory, if any
  const [first] = children(node);
  return first && isDirectory(first) && tree.sizes[first] >= LEAD * tree.sizes[node] ? first : 0;
}

function place(outer, x, y, width, height, titled = true) {
  if (width < LEAST || height < LEAST) return;
  // Directories with only one child are drawn as one.
  let node = outer, title = name(node);
  let inside = isDirectory(node) ? children(node) : [];
  while (outer !== top && inside.length === 1 && isDirectory(inside[0])) {
    node = inside[0];
    inside = children(node);
    title += "/" + name(node);
  }
  const whole = !inside.length || (node !== top && width * height < DUST * inside.length);
  const sharing = node === top || whole ? 0 : lead(node);
  for (let at = sharing; at; at = lead(at)) title += "/" + name(at);
  const head = titled && node !== top && !whole && height > 2 * TITLE && width > 30 ? TITLE : 0;
  cells.push({ node, outer, x, y, width, height, whole, title, head });
  if (whole) return;
  const edge = node === top ? 0 : 1;
  layOut(inside, tree.sizes[node], x + edge, y + edge + head, width - 2 * edge, height - 2 * edge - head,
    (child, ...box) => place(child, ...box, !(head && child === sharing) && (titled || child !== sharing)));
}

function isLit(node) {  // of the chosen category, and found by the search
  return (chosen === null || modes[mode].category(tree.main[node]) === chosen) && (!matches || matches.has(node));
}

function hasMark(cell) {
  for (let at = cell.node; ; at = tree.parents[at]) {
    if (at === marked) return true;
    if (at === cell.outer) return false;
  }
}

function draw() {
  const canvas = $("canvas"), box = $("map").getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  canvas.width = box.width * ratio; canvas.height = box.height * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const style = getComputedStyle(document.documentElement);
  const [frame, dim, soft, card, mark] = ["--frame", "--dim", "--soft", "--card", "--mark"]
    .map((key) => style.getPropertyValue(key).trim());
  const paints = new Map();
  context.fillStyle = card;
  context.fillRect(0, 0, box.width, box.height);
  context.font = "12px system-ui, 'DejaVu Sans', sans-serif";
  context.textBaseline = "middle";
  cells = [];
  if (tree.sizes[top]) place(top, 0, 0, box.width, box.height);
  let outline = null;
  for (const cell of cells) {
    const { node, x, y, width, height, whole, title, head } = cell;
    if (node === top) continue;
    let colours = { fill: isDirectory(node) && !whole ? frame : dim, ink: soft };
    if (colours.fill === dim && isLit(node)) {
      const category = modes[mode].category(tree.main[node]);
      if (!paints.has(category)) paints.set(category, paint(mode, category));
      colours = paints.get(category);
    }
    context.fillStyle = colours.fill;
    context.fillRect(x + 0.5, y + 0.5, Math.max(width - 1, 1), Math.max(height - 1, 1));
    if (marked && hasMark(cell)) outline = cell;
    if (whole ? height > 15 && width > 34 : head) {
      context.fillStyle = colours.ink;
      label(context, title + (isDirectory(node) ? "/" : ""), x + 5, y + (head ? 10 : Math.min(height / 2, 12)), width - 9);
    }
  }
  if (outline) {
    context.strokeStyle = mark; context.lineWidth = 3;
    context.strokeRect(outline.x + 2, outline.y + 2, Math.max(outline.width - 4, 1), Math.max(outline.height - 4, 1));
  }
  if (!tree.sizes[top]) {
    context.fillStyle = soft;
    context.fillText("no file content in this directory", 16, 24);
  }
  document.body.dataset.cells = cells.length;
  document.body.dataset.marks = outline ? 1 : 0;
}

function label(context, text, x, y, width) {
  if (context.measureText(text).width > width) {
    let length = Math.floor(text.length * width / context.measureText(text).width) - 1;
    while (length > 0 && context.measureText(text.slice(0, length) + "…").width > width) length--;
    if (length < 2) return;
    text = text.slice(0, length) + "…";
  }
  context.fillText(text, x, y);
}

function hit(event) {  // the innermost cell under the pointer
  const box = $("canvas").getBoundingClientRect();
  const x = event.clientX - box.left, y = event.clientY - box.top;
  for (let at = cells.length - 1; at >= 0; at--) {
    const cell = cells[at];
    if (x >= cell.x && x < cell.x + cell.width && y >= cell.y && y < cell.y + cell.height) return cell;
  }
  return null;
}

function below(node) {  // the child of the shown directory that contains a node
  while (node && tree.parents[node] !== top) node = tree.parents[node];
  return node;
}

const address = (node) => "#" + path(node).split("/").map(encodeURIComponent).join("/");

function show(node, mark) {  // draw a directory, with one of its descendants marked
  top = node;
  marked = mark || 0;
  const crumbs = $("crumbs"), trail = [];
  for (let at = top; at; at = tree.parents[at]) trail.unshift(at);
  crumbs.replaceChildren();
  [0, ...trail].forEach((at, position) => {
    if (position > 1) crumbs.append(element("span", "/"));
    crumbs.append(element("button", name(at), { type: "button", onclick: () => goTo(at) }));
  });
  crumbs.append(element("span", ` ${bytes(tree.sizes[top])} in ${count(tree.files[top], "file")}`));
  $("tip").hidden = true;
  draw();
}

function goTo(node, mark) {  // as a step of the browser's history
  const target = mark || node;
  if (address(target) !== location.hash) history.pushState(null, "", address(target));
  show(node, mark);
}

function goToAddress() {
  let wanted = "/";
  try { wanted = decodeURIComponent(location.hash.slice(1)); } catch { /* not an address of ours: the root */ }
  const [node] = find(wanted);
  if (isDirectory(node)) show(node); else show(tree.parents[node], node);
}

function describe(node) {
  const step = about.steps.find((row) => row.layer && row.layer === layer(node));
  const waste = wasted().get(node);
  return [`${bytes(tree.sizes[node])}, ${percent(tree.sizes[node], tree.sizes[0])}` +
    (isDirectory(node) ? `, ${count(tree.files[node], "file")}` : ""),
  layer(node) && `layer ${layer(node)}` + (step && step.created_by ? ": " + step.created_by.slice(0, 90) : ""),
  waste].filter(Boolean).join(" · ");
}

function showTip(node, x, y) {
  const tip = $("tip"), box = $("map").getBoundingClientRect();
  tip.hidden = !node;
  if (!node) return;
  tip.replaceChildren(element("b", path(node)), describe(node));
  tip.style.left = Math.max(0, Math.min(x + 14, box.width - tip.offsetWidth - 4)) + "px";
  tip.style.top = (y + 18 + tip.offsetHeight > box.height ? y - tip.offsetHeight - 8 : y + 18) + "px";
}

function open(cell, event) {  // what a click on a cell does
  const inTitle = !cell.whole && event.offsetY < cell.y + cell.head;
  const node = isDirectory(cell.node) && (cell.whole || inTitle) ? cell.node : below(cell.node);
  if (node && isDirectory(node)) goTo(node);
  else if (node) goTo(top, node);
}

const KEYS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

function pressKey(event) {
  const shown = children(top), at = shown.indexOf(below(marked));
  if (event.key === "Escape" || event.key === "Backspace") {
    if (top) goTo(tree.parents[top], top);
  } else if (event.key === "Enter") {
    if (at >= 0 && isDirectory(shown[at])) goTo(shown[at]);
  } else if (event.key in KEYS && shown.length) {
    marked = shown[at < 0 ? 0 : (at + KEYS[event.key] + shown.length) % shown.length];
    $("found").textContent = `${path(marked)} · ${describe(marked)}`;
    draw();
  } else return;
  event.preventDefault();
}

function choose(wanted, category) {  // highlight a category; a second time, all again
  chosen = mode === wanted && chosen === category ? null : category;
  mode = wanted;
  $("colour").value = mode;
  showChoice();
}

function showChoice() {
  const legend = $("legend");
  legend.replaceChildren();
  for (const category of modes[mode].legend) {
    const button = element("button", category, { type: "button", onclick: () => choose(mode, category) });
    painted(button, mode, category);
    button.setAttribute("aria-pressed", chosen === category);
    legend.append(button);
  }
  const groups = about.equal && about.equal.groups, listed = groups && about.equal.largest.length;
  if (mode === "waste" && listed < groups) {
    legend.append(element("span", `of ${count(groups)} groups of duplicates, the ${count(listed)} largest`, { className: "note" }));
  }
  const number = mode === "layer" ? chosen : null;
  pressed("#timeline button, #steps button", (button) => Number(button.dataset.layer) === number);
  for (const row of document.querySelectorAll("#steps tr.pick")) {
    row.setAttribute("aria-selected", Number(row.dataset.layer) === number);
  }
  if (tree) draw();
}

// --- search

// A pattern as `flatten ls` takes it: see tree/patterns.py.
function glob(pattern) {
  const directories = pattern.endsWith("/");
  const parts = pattern.replace(/^\.\//, "").replace(/\/+$/, "").split("/");
  if (parts.length === 1) parts.unshift("**");
  if (!parts[0]) parts.shift();
  const literal = (text) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
  const source = parts.map((part, at) => {
    const last = at + 1 === parts.length;
    if (part === "**") return last ? ".+" : "(?:.*/)?";
    let out = "";
    for (const found of part.matchAll(/\\(.)|\[([!^]?)(\]?[^\]/]*)\]|(\*+)|(\?)|([^])/gu)) {
      const [, escaped, negated, set, star, one, plain] = found;
      if (star) out += "[^/]*";
      else if (one) out += "[^/]";
      else if (set !== undefined) out += `[${negated ? "^/" : ""}${set.replace(/[\\[\]^]/g, "\\$&")}]`;
      else out += literal(escaped || plain);
    }
    return last ? out : out + "/";
  }).join("");
  const expression = new RegExp(`^(?:${source})$`, "su");
  return (whole, directory) => (directory || !directories) && expression.test(whole.slice(1));
}

// What the search field asks for; it throws SyntaxError for an invalid expression.
function matcher(text) {
  const isPath = text.includes("/") && find(text)[1];
  const inner = /^\/(.+)\/$/.exec(text);
  if (inner && !isPath) {
    const expression = new RegExp(inner[1], "i");
    return (whole) => expression.test(whole);
  }
  if (/[*?[]/.test(text) && !isPath) return glob(text);
  const wanted = text.toLowerCase();
  return (whole, directory) => (directory ? whole + "/" : whole).toLowerCase().includes(wanted);
}

function search() {
  const text = $("search").value.trim(), found = $("found");
  let test = null, problem = "";
  try {
    test = text ? matcher(text) : null;
  } catch (error) {
    problem = `not a valid pattern: ${error.message}`;
  }
  $("search").classList.toggle("wrong", problem !== "");
  $("results").replaceChildren();
  $("more-results").hidden = true;
  found.textContent = problem;
  matches = test && new Set();
  if (test) {
    const nodes = collect(test);
    const size = nodes.reduce((sum, node) => sum + (isDirectory(node) ? 0 : tree.sizes[node]), 0);
    found.textContent = nodes.length ? `${count(nodes.length, "path")}, ${bytes(size)} in files` : "no path matches";
    nodes.sort((a, b) => tree.sizes[b] - tree.sizes[a]);
    addRows(nodes, $("more-results"), (node) => $("results").append(result(node)));
  }
  draw();
}

function collect(test) {  // the paths that match, and all below those; note what is to be lit
  const paths = [""], nodes = [], inside = new Uint8Array(tree.total + 1);
  for (let node = 1; node <= tree.total; node++) {  // parents come first
    const parent = tree.parents[node], whole = paths[parent] + "/" + name(node);
    if (isDirectory(node)) paths[node] = whole;
    if (!inside[parent] && !test(whole, isDirectory(node))) continue;
    inside[node] = 1;
    for (let at = node; at && !matches.has(at); at = tree.parents[at]) matches.add(at);
    nodes.push(node);
  }
  return nodes;
}

function result(node) {
  const row = element("li"), button = element("button", undefined, { type: "button", className: "link" });
  button.append(element("span", bytes(tree.sizes[node])), element("code", path(node) + (isDirectory(node) ? "/" : "")));
  row.onclick = () => goTo(tree.parents[node], node);
  row.append(button);
  return row;
}

function addRows(items, more, add) {  // the first ones, and a button for the others
  items.slice(0, ROWS).forEach(add);
  more.hidden = items.length <= ROWS;
  more.textContent = `Show all ${count(items.length)}`;
  more.onclick = () => { items.slice(ROWS).forEach(add); more.hidden = true; };
}

// Up and down go from one row's button to the next, and from the search field to the first.
function walkRows(event) {
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  const buttons = [...event.currentTarget.querySelectorAll("button")];
  const next = buttons[buttons.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1)];
  if (next) next.focus(); else if (event.currentTarget === $("results") && event.key === "ArrowUp") $("search").focus();
  event.preventDefault();
}

// --- figures, layers, lists

function figure(value, what, kind) {
  const box = element("div", undefined, { className: "figure" });
  box.append(element("b", value, { className: kind || "" }), element("span", what));
  $("figures").append(box);
}

function showFigures() {
  const score = about.efficiency.score, made = about.steps.filter((row) => row.layer);
  const rate = (size) => size > about.efficiency.size / 20 ? "bad" : "";
  figure(bytes(about.size), "in " + count(about.files, "file"));
  figure(String(made.length), `layer${made.length === 1 ? "" : "s"}, ${bytes(about.efficiency.size)}`);
  figure((100 * score).toFixed(1) + " %", "efficiency (dive)", score >= 0.95 ? "good" : "bad");
  figure(bytes(about.efficiency.wasted), "wasted (dive)", rate(about.efficiency.wasted));
  figure(bytes(about.hidden.size), "hidden by later layers", rate(about.hidden.size));
  if (about.equal) figure(bytes(about.equal.spare), "in duplicate files", rate(about.equal.spare));
  $("about").textContent = [about.platform, about.id && "sha256:" + about.id.slice(0, 12), about.names.slice(1).join(", ")]
    .filter(Boolean).join(" · ");
  const problems = [];
  if (about.problem) problems.push(about.problem + "; steps cannot be matched to layers");
  if (about.verified === "toc") problems.push("verified only by table of contents: the layers were not checked against the image's digests");
  else if (!about.verified) problems.push("not verified: the layers were not checked against the image's digests");
  $("problem").hidden = !problems.length;
  $("problem").textContent = problems.join(". ");
}

function table(target, heads, rows, more) {  // rows: [cells, what a click does, the layer]
  const head = element("tr");
  for (const text of heads) head.append(element("th", text.replace(/^>/, ""), { className: text[0] === ">" ? "number" : "" }));
  target.replaceChildren(element("thead"), element("tbody"));
  target.tHead.append(head);
  const add = ([cells_, pick, number]) => {
    const row = element("tr", undefined, pick ? { className: "pick", onclick: pick } : {});
    const button = pick && element("button", undefined, { type: "button", className: "link" });
    if (number) row.dataset.layer = button.dataset.layer = number;
    cells_.forEach((cell, at) => {
      const last = at === cells_.length - 1;
      const made = element("td", undefined, { className: last ? "wide" : heads[at][0] === ">" ? "number" : "" });
      made.dataset.head = heads[at].replace(/^>/, "");
      const held = pick && (number ? heads[at] === ">Layer" : last) ? button : made;
      held.append(cell);
      if (held !== made) made.append(held);
      row.append(made);
    });
    target.tBodies[0].append(row);
  };
  if (more) addRows(rows, more, add); else rows.forEach(add);
}

function showLayers() {
  const made = about.steps.filter((row) => row.layer);
  $("timeline").replaceChildren();
  for (const row of made.filter((row) => row.size)) {
    const button = element("button", undefined, { type: "button", onclick: () => choose("layer", row.layer),
      title: `layer ${row.layer}: ${bytes(row.size)}\n${row.created_by || ""}` });
    button.append(element("span", String(row.layer)));
    button.style.flexGrow = row.size;
    button.dataset.layer = row.layer;
    button.setAttribute("aria-label", `layer ${row.layer}, ${bytes(row.size)}`);
    painted(button, "layer", row.layer);
    $("timeline").append(button);
  }
  const empty = made.filter((row) => !row.size).map((row) => row.layer);
  $("empty").hidden = !empty.length;
  $("empty").textContent = `Without file content: layer${empty.length === 1 ? "" : "s"} ${empty.join(", ")}.`;
  table($("steps"), [">Step", ">Layer", ">Size", ">Hidden", "Created", "Command"], about.steps.map((row) => {
    let number = "–";
    if (row.layer) {
      number = element("span");
      const swatch = element("span", undefined, { className: row.size ? "swatch" : "swatch none" });
      if (row.size) swatch.style.background = paint("layer", row.layer).fill;
      number.append(swatch, String(row.layer));
    }
    return [[row.step ? String(row.step) : "–", number, row.layer ? bytes(row.size) : "–",
      row.hidden ? bytes(row.hidden) : "–", (row.created || "–").slice(0, 10), row.created_by || row.comment || "–"],
    row.layer ? () => choose("layer", row.layer) : null, row.layer];
  }));
  fitLabels();
}

function fitLabels() {  // a layer has its number where there is room for it
  for (const button of $("timeline").children) {
    const text = button.firstChild;
    text.hidden = false;
    text.hidden = text.offsetWidth + 4 > button.clientWidth;
  }
}

const LISTS = {
  "Directories": ["Bytes of file content in each directory and all below it.",
    [">Size", ">Share", ">Files", "Directory"],
    () => about.directories.map((row) => [[bytes(row.size), percent(row.size, about.size), count(row.files), "/" + row.path], () => openPath(row.path)])],
  "Largest files": ["The largest files, and the layer that each comes from.",
    [">Size", ">Share", ">Layer", "File"],
    () => about.largest.map((row) => [[bytes(row.size), percent(row.size, about.size), String(row.layer), "/" + row.path], () => openPath(row.path)])],
  "Hidden files": ["Files that a layer contains but the image does not show, because a later layer replaced or removed them.",
    [">Size", ">Layer", "Now", "File"],
    () => about.hidden.largest.map((row) => [[bytes(row.size), String(row.layer), row.replaced ? "replaced" : "removed", "/" + row.path], null])],
  "Wasted paths (dive)": ["Paths that several layers contain, with the bytes of all of them, as the tool dive counts.",
    [">Size", ">Times", "Path"],
    () => about.efficiency.paths.map((row) => [[bytes(row.size), String(row.count), "/" + row.path], null])],
  "Duplicate files": ["Files with identical content that are not hard-linked, and how much deduplicating them would save.",
    [">Could be saved", ">Each", ">Files", "Paths"],
    () => (about.equal ? about.equal.largest : []).map((row) => [[bytes(row.size * (row.count - 1)), bytes(row.size), String(row.count), row.paths.map((p) => "/" + p).join("  ")], () => openPath(row.paths[0])])],
};

function openPath(wanted) {
  const [node] = find(wanted);
  if (isDirectory(node)) goTo(node); else goTo(tree.parents[node], node);
  $("map").scrollIntoView({ block: "center" });
}

function showTabs() {
  for (const [title, [explain, heads, rows]] of Object.entries(LISTS)) {
    if (title === "Duplicate files" && !about.equal) continue;
    const tab = element("button", title, { type: "button" });
    tab.setAttribute("role", "tab");
    tab.onclick = () => {
      for (const other of $("tabs").children) other.setAttribute("aria-selected", other === tab);
      const listed = rows();
      $("explain").textContent = listed.length ? explain : explain + " There are none.";
      table($("list"), heads, listed, $("more-list"));
    };
    $("tabs").append(tab);
  }
  $("tabs").firstChild.click();
}

// --- start

function repaint() {
  showLayers();
  showChoice();
}

$("theme").onclick = () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  repaint();
};
$("colour").onchange = () => { mode = $("colour").value; chosen = null; showChoice(); };
$("canvas").onmousemove = (event) => {
  const found = hit(event), box = $("map").getBoundingClientRect();
  showTip(found ? found.node : 0, event.clientX - box.left, event.clientY - box.top);
};
$("canvas").onmouseleave = () => showTip(0);
$("canvas").onclick = (event) => {
  const found = hit(event);
  if (found) open(found, event);
};
$("canvas").onkeydown = pressKey;
$("results").onkeydown = walkRows;
$("list").onkeydown = walkRows;
$("steps").onkeydown = walkRows;
$("search").onkeydown = (event) => {
  const first = $("results").querySelector("button");
  if (event.key === "ArrowDown" && first) { first.focus(); event.preventDefault(); }
};
let waiting = 0;
$("search").oninput = () => { clearTimeout(waiting); waiting = setTimeout(search, 120); };
addEventListener("resize", () => { fitLabels(); if (tree) draw(); });
addEventListener("popstate", () => tree && goToAddress());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

(async () => {
  showFigures();
  showLayers();
  showTabs();
  tree = unpack(await inflate($("tree").textContent), about.count);
  showChoice();
  goToAddress();
  document.body.dataset.ready = "yes";
})();
