// Draws a report: figures, layers, a treemap that can be gone into and searched, lists.
// The columns of the tree are described in page.py.

const $ = (id) => document.getElementById(id);
const about = JSON.parse($("data").textContent);
const DIRECTORY = 1;  // a kind
const TITLE = 17, LEAST = 3, DUST = 36;  // pixels: of a title, of a cell's side, of a cell
const RESULTS = 200;

// --- words

function bytes(size) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (size >= 1000 && at < units.length - 1) { size /= 1024; at += 1; }
  return (at && size < 100 ? size.toFixed(1) : Math.round(size)) + " " + units[at];
}
const count = (number) => number.toLocaleString("en");
const percent = (part, whole) => (whole ? (100 * part / whole) : 0).toFixed(1) + " %";

function element(tag, text, properties) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return Object.assign(made, properties || {});
}

function colour(layer) {
  if (!layer) return "hsl(0 0% var(--cell))";
  return `hsl(${(layer * 137.5 + 190) % 360} var(--sat) var(--cell))`;
}

// --- the tree

let tree;  // columns, and what is worked out of them

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
  const main = new Uint16Array(total + 1), largest = new Float64Array(total + 1);
  const trail = [0];
  for (let i = 0; i < total; i++) {
    sizes[i + 1] = high[i] * 4294967296 + low[i];
    files[i + 1] = kinds[i] === 0 ? 1 : 0;
    trail.length = Math.min(depths[i] + 1, trail.length);
    parents[i + 1] = trail[trail.length - 1];
    if (kinds[i] === DIRECTORY) trail.push(i + 1);
  }
  for (let node = total; node > 0; node--) {
    if (kinds[node - 1] !== DIRECTORY) main[node] = layers[node - 1];
    if (sizes[node] > largest[parents[node]]) {  // what gives a directory its colour
      largest[parents[node]] = sizes[node];
      main[parents[node]] = main[node];
    }
    sizes[parents[node]] += sizes[node];
    files[parents[node]] += files[node];
    ends[node] = Math.max(ends[node], node + 1);
    ends[parents[node]] = Math.max(ends[parents[node]], ends[node]);
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

function children(node) {  // those of some size, the largest first
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

function find(wanted) {  // the node of a path, or the nearest one above it
  let node = 0;
  for (const part of wanted.split("/").filter((part) => part && part !== ".")) {
    let next = 0;
    for (let child = node + 1; child < tree.ends[node]; child = tree.ends[child]) {
      if (name(child) === part) { next = child; break; }
    }
    if (!next) break;
    node = next;
  }
  return node;
}

// --- the treemap

let top = 0, chosenLayer = 0, matches = null, marked = 0;
let cells = [];  // [node, x, y, width, height, whole, title], a directory before what is in it

// Squarified: rows of cells whose sides are as near to squares as can be.
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

function place(node, x, y, width, height) {
  if (width < LEAST || height < LEAST) return;
  let inside = isDirectory(node) ? children(node) : [];
  let title_ = name(node);
  while (node !== top && inside.length === 1 && isDirectory(inside[0])) {  // as one
    node = inside[0];
    inside = children(node);
    title_ += "/" + name(node);
  }
  // Where what is in it would be dust, a directory is drawn whole.
  const whole = !inside.length || (node !== top && width * height < DUST * inside.length);
  cells.push([node, x, y, width, height, whole, title_]);
  if (whole) return;
  const title = node !== top && height > 2 * TITLE && width > 30 ? TITLE : 0;
  const edge = node === top ? 0 : 1;
  layOut(inside, tree.sizes[node], x + edge, y + edge + title,
    width - 2 * edge, height - 2 * edge - title, place);
}

function lit(node) {  // it is of the chosen layer, and found by the search
  return (!chosenLayer || tree.main[node] === chosenLayer) && (!matches || matches.has(node));
}

function draw() {
  const canvas = $("canvas"), box = $("map").getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  canvas.width = box.width * ratio; canvas.height = box.height * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const style = getComputedStyle(document.documentElement);
  const value = (key) => style.getPropertyValue(key).trim();
  const paint = [], ink = value("--ink"), frame = value("--frame"), dim = value("--dim");
  const soft = value("--soft"), card = value("--card"), mark = value("--mark");
  const shade = (n) => paint[n] || (paint[n] = n
    ? `hsl(${(n * 137.5 + 190) % 360} ${value("--sat")} ${value("--cell")})` : `hsl(0 0% ${value("--cell")})`);
  context.fillStyle = card;
  context.fillRect(0, 0, box.width, box.height);
  context.font = "12px system-ui, 'DejaVu Sans', sans-serif";
  context.textBaseline = "middle";
  cells = [];
  if (tree.sizes[top]) place(top, 0, 0, box.width, box.height);
  for (const [node, x, y, width, height, whole, title] of cells) {
    if (node === top) continue;
    const directory = isDirectory(node) && !whole, on = lit(node);
    context.fillStyle = directory ? frame : on ? shade(tree.main[node]) : dim;
    context.fillRect(x + 0.5, y + 0.5, Math.max(width - 1, 1), Math.max(height - 1, 1));
    if (node === marked) {
      context.strokeStyle = mark; context.lineWidth = 3;
      context.strokeRect(x + 2, y + 2, width - 4, height - 4);
    }
    const room = directory ? height > 2 * TITLE && width > 30 : height > 15 && width > 34;
    if (!room) continue;
    context.fillStyle = directory ? soft : on ? ink : soft;
    label(context, title + (isDirectory(node) ? "/" : ""), x + 5, y + (directory ? 10 : Math.min(height / 2, 12)), width - 9);
  }
  if (!tree.sizes[top]) {
    context.fillStyle = soft;
    context.fillText("nothing of any size in here", 16, 24);
  }
  document.body.dataset.cells = cells.length;
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
    const [, left, upper, width, height] = cells[at];
    if (x >= left && x < left + width && y >= upper && y < upper + height) return cells[at];
  }
  return null;
}

function below(node) {  // the directory right below the shown one that has a node
  while (node && tree.parents[node] !== top) node = tree.parents[node];
  return node;
}

function goTo(node, mark) {
  top = isDirectory(node) ? node : tree.parents[node];
  marked = mark || 0;
  const crumbs = $("crumbs"), trail = [];
  for (let at = top; at; at = tree.parents[at]) trail.unshift(at);
  crumbs.replaceChildren();
  [0, ...trail].forEach((at, position) => {
    if (position > 1) crumbs.append(element("span", "/"));
    crumbs.append(element("button", name(at), { type: "button", onclick: () => goTo(at) }));
  });
  crumbs.append(element("span", ` ${bytes(tree.sizes[top])} in ${count(tree.files[top])} files`));
  $("tip").hidden = true;
  draw();
}

function showTip(event) {
  const found = hit(event), tip = $("tip");
  if (!found || found[0] === 0) { tip.hidden = true; return; }
  const node = found[0], step = about.steps.find((row) => row.layer === layer(node));
  tip.replaceChildren(element("b", path(node)),
    `${bytes(tree.sizes[node])}, ${percent(tree.sizes[node], tree.sizes[0])}` +
    (isDirectory(node) ? `, ${count(tree.files[node])} files` : "") +
    (layer(node) ? ` · layer ${layer(node)}` : "") +
    (step && step.created_by ? ": " + step.created_by.slice(0, 90) : ""));
  tip.hidden = false;
  const box = $("map").getBoundingClientRect();
  const x = event.clientX - box.left, y = event.clientY - box.top;
  tip.style.left = Math.min(x + 14, box.width - tip.offsetWidth - 4) + "px";
  tip.style.top = (y + 18 + tip.offsetHeight > box.height ? y - tip.offsetHeight - 8 : y + 18) + "px";
}

// --- search

function search() {
  const text = $("search").value, results = $("results");
  let test = null;
  $("search").classList.remove("wrong");
  if (text.startsWith("/") && text.length > 1) {
    try {
      const expression = new RegExp(text.slice(1).replace(/\/$/, ""), "i");
      test = (whole) => expression.test(whole);
    } catch {
      $("search").classList.add("wrong");
      return;
    }
  } else if (text) {
    const wanted = text.toLowerCase();
    test = (whole) => whole.toLowerCase().includes(wanted);
  }
  results.replaceChildren();
  $("found").hidden = !test;
  matches = test && new Set();
  if (test) {
    const paths = [""], found = [];
    let size = 0;
    for (let node = 1; node <= tree.total; node++) {  // parents come first
      const whole = paths[tree.parents[node]] + "/" + name(node);
      if (isDirectory(node)) paths[node] = whole;
      if (!test(whole)) continue;
      for (let at = node; at && !matches.has(at); at = tree.parents[at]) matches.add(at);
      found.push(node);
      if (!isDirectory(node)) size += tree.sizes[node];
    }
    $("found").textContent = `${count(found.length)} paths, ${bytes(size)} in files` +
      (found.length > RESULTS ? `; the largest ${RESULTS}:` : "");
    found.sort((a, b) => tree.sizes[b] - tree.sizes[a]);
    for (const node of found.slice(0, RESULTS)) {
      const row = element("li");
      row.append(element("span", bytes(tree.sizes[node])), element("code", path(node) + (isDirectory(node) ? "/" : "")));
      row.onclick = () => goTo(tree.parents[node], node);
      results.append(row);
    }
  }
  draw();
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
  figure(bytes(about.size), `in ${count(about.files)} files`);
  figure(String(made.length), `layers, ${bytes(about.efficiency.size)}`);
  figure((100 * score).toFixed(1) + " %", "efficiency (dive)", score >= 0.95 ? "good" : "bad");
  figure(bytes(about.efficiency.wasted), "wasted (dive)", rate(about.efficiency.wasted));
  figure(bytes(about.hidden.size), "hidden by later layers", rate(about.hidden.size));
  if (about.equal) figure(bytes(about.equal.spare), "in duplicate files", rate(about.equal.spare));
  $("about").textContent = [about.platform, about.id && "sha256:" + about.id.slice(0, 12), about.names.slice(1).join(", ")]
    .filter(Boolean).join(" · ");
  const problems = [];
  if (about.problem) problems.push(about.problem + "; steps cannot be matched to layers");
  if (!about.verified) problems.push("not verified: the layers were not checked against the image's digests");
  $("problem").hidden = !problems.length;
  $("problem").textContent = problems.join(". ");
}

function chooseLayer(number) {
  chosenLayer = chosenLayer === number ? 0 : number;
  for (const button of document.querySelectorAll("#timeline button")) {
    button.setAttribute("aria-pressed", Number(button.dataset.layer) === chosenLayer);
  }
  for (const row of document.querySelectorAll("#steps tr.pick")) {
    row.setAttribute("aria-selected", Number(row.dataset.layer) === chosenLayer);
  }
  draw();
}

function table(target, heads, rows) {
  const head = element("tr");
  for (const text of heads) head.append(element("th", text.replace(/^>/, ""), { className: text[0] === ">" ? "number" : "" }));
  target.replaceChildren(element("thead"), element("tbody"));
  target.tHead.append(head);
  for (const [cells_, pick] of rows) {
    const row = element("tr", undefined, pick ? { className: "pick", onclick: pick } : {});
    cells_.forEach((cell, at) => {
      const last = at === cells_.length - 1;
      const made = element("td", cell instanceof Node ? undefined : cell,
        { className: last ? "wide" : heads[at][0] === ">" ? "number" : "" });
      if (cell instanceof Node) made.append(cell);
      row.append(made);
    });
    target.tBodies[0].append(row);
  }
}

function showLayers() {
  const made = about.steps.filter((row) => row.layer);
  for (const row of made) {
    const button = element("button", String(row.layer), { type: "button", onclick: () => chooseLayer(row.layer),
      title: `layer ${row.layer}: ${bytes(row.size)}\n${row.created_by || ""}` });
    button.style.flexGrow = row.size;
    button.style.background = colour(row.layer);
    button.dataset.layer = row.layer;
    button.setAttribute("aria-pressed", "false");
    $("timeline").append(button);
  }
  table($("steps"), [">Step", ">Layer", ">Size", ">Hidden", "Created", "Command"], about.steps.map((row) => {
    let number = "–";
    if (row.layer) {
      number = element("span");
      const swatch = element("span", undefined, { className: "swatch" });
      swatch.style.background = colour(row.layer);
      number.append(swatch, String(row.layer));
    }
    return [[row.step ? String(row.step) : "–", number, row.layer ? bytes(row.size) : "–",
      row.hidden ? bytes(row.hidden) : "–", (row.created || "–").slice(0, 10), row.created_by || row.comment || "–"],
    row.layer ? () => chooseLayer(row.layer) : null];
  }));
  document.querySelectorAll("#steps tbody tr").forEach((row, at) => { row.dataset.layer = about.steps[at].layer || ""; });
}

const LISTS = {
  "Directories": ["Bytes of content in each directory and all below it.",
    [">Size", ">Share", ">Files", "Directory"],
    () => about.directories.map((row) => [[bytes(row.size), percent(row.size, about.size), count(row.files), "/" + row.path], () => open_(row.path)])],
  "Largest files": ["The largest files, and the layer that each comes from.",
    [">Size", ">Share", ">Layer", "File"],
    () => about.largest.map((row) => [[bytes(row.size), percent(row.size, about.size), String(row.layer), "/" + row.path], () => open_(row.path)])],
  "Hidden": ["Files that a layer holds and no path shows: a later layer replaced or removed them.",
    [">Size", ">Layer", "Now", "File"],
    () => about.hidden.largest.map((row) => [[bytes(row.size), String(row.layer), row.replaced ? "replaced" : "removed", "/" + row.path], null])],
  "Wasted paths (dive)": ["Paths that are in several layers, with the bytes of all of them, as dive counts.",
    [">Size", ">Times", "Path"],
    () => about.efficiency.paths.map((row) => [[bytes(row.size), String(row.count), "/" + row.path], null])],
  "Equal files": ["Files with identical content that are not hard-linked, and how much deduplicating them would save.",
    [">To spare", ">Each", ">Files", "Paths"],
    () => (about.equal ? about.equal.largest : []).map((row) => [[bytes(row.size * (row.count - 1)), bytes(row.size), String(row.count), row.paths.map((p) => "/" + p).join("  ")], () => open_(row.paths[0])])],
};

function open_(wanted) {
  const node = find(wanted);
  goTo(node, isDirectory(node) ? 0 : node);
  $("map").scrollIntoView({ block: "center" });
}

function showTabs() {
  for (const [title, [explain, heads, rows]] of Object.entries(LISTS)) {
    if (title === "Equal files" && !about.equal) continue;
    const tab = element("button", title, { type: "button" });
    tab.setAttribute("role", "tab");
    tab.onclick = () => {
      for (const other of $("tabs").children) other.setAttribute("aria-selected", other === tab);
      $("explain").textContent = explain;
      table($("list"), heads, rows());
    };
    $("tabs").append(tab);
  }
  $("tabs").firstChild.click();
}

// --- start

$("theme").onclick = () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  draw();
};
$("canvas").onmousemove = showTip;
$("canvas").onmouseleave = () => { $("tip").hidden = true; };
$("canvas").onclick = (event) => {
  const found = hit(event);
  if (!found) return;
  const node = below(found[0]);
  if (node && isDirectory(node)) goTo(node);
  else if (node) { marked = node; draw(); }
};
$("canvas").onkeydown = (event) => {
  if (event.key === "Escape" || event.key === "Backspace") { goTo(tree.parents[top]); event.preventDefault(); }
};
let waiting = 0;
$("search").oninput = () => { clearTimeout(waiting); waiting = setTimeout(search, 120); };
addEventListener("resize", () => tree && draw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => tree && draw());

(async () => {
  showFigures();
  showLayers();
  showTabs();
  tree = unpack(await inflate($("tree").textContent), about.count);
  goTo(0);
  document.body.dataset.ready = "yes";
})();
