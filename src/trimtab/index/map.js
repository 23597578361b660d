"use strict";
// FEATURES as for the search; POINTS: feature, x, y (0 to 10,000, upwards), cluster (-1: none), and the clusters' names.
const [canvas, tip, box, say, legend] = ["map", "tip", "words", "say", "legend"].map(id => document.getElementById(id));
const pen = canvas.getContext("2d");
const COUNT = POINTS.feature.length;
const INFO = new Map(FEATURES.map(one => [one[0], one]));
const TEXTS = POINTS.feature.map(n => INFO.get(n).slice(0, 3).join(" ").toLowerCase());
const colour = cluster => cluster < 0 ? POINTS.loose : POINTS.colours[cluster % POINTS.colours.length];
// Points of one colour are drawn together, those in no cluster first.
const ORDER = [...Array(COUNT).keys()].sort((a, b) => POINTS.cluster[a] - POINTS.cluster[b]);
const TALL = Math.max(...POINTS.y), WIDE = Math.max(...POINTS.x);
const view = { scale: 1, x: 0, y: 0 };
let lit = null, chosen = -1, cluster = -1, asked = false, width = 0, height = 0;

const fit = () => Math.min(width / (WIDE * 1.06), height / (TALL * 1.06));
const screenX = i => (POINTS.x[i] - view.x) * view.scale + width / 2;
const screenY = i => (view.y - POINTS.y[i]) * view.scale + height / 2;

function whole() {
  Object.assign(view, { scale: fit(), x: WIDE / 2, y: TALL / 2 });
  draw();
}

function draw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    paint();
  });
}

function paint() {
  const ratio = devicePixelRatio || 1, size = Math.min(7, Math.max(1.3, 1.5 * Math.sqrt(view.scale / fit())));
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  for (const faint of lit ? [true, false] : [false]) {
    let last = null;
    pen.globalAlpha = faint ? 0.12 : 0.85;
    for (const i of ORDER) {
      if (lit && lit.has(i) === faint) continue;
      const x = screenX(i), y = screenY(i);
      if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
      const now = colour(POINTS.cluster[i]);
      if (now !== last) {
        if (last !== null) pen.fill();
        pen.beginPath();
        pen.fillStyle = last = now;
      }
      const r = lit && !faint ? size + 1 : size;
      if (r < 2.5) {
        pen.rect(x - r, y - r, 2 * r, 2 * r);
      } else {
        pen.moveTo(x + r, y);
        pen.arc(x, y, r, 0, 7);
      }
    }
    if (last !== null) pen.fill();
  }
  pen.globalAlpha = 1;
  mark(size);
}

function mark(size) {
  tip.hidden = chosen < 0;
  if (chosen < 0) return;
  const x = screenX(chosen), y = screenY(chosen);
  pen.beginPath();
  pen.arc(x, y, size + 4, 0, 7);
  pen.strokeStyle = getComputedStyle(canvas).color;
  pen.lineWidth = 2;
  pen.stroke();
  const [number, label] = INFO.get(POINTS.feature[chosen]);
  tip.textContent = number + " " + label;
  const left = Math.max(4, Math.min(x + 12, width - tip.offsetWidth - 4));
  tip.style.transform = `translate(${left}px, ${y > height / 2 ? y - tip.offsetHeight - 12 : y + 12}px)`;
  tip.style.left = tip.style.top = 0;
}

function nearest(x, y, within) {
  let best = -1, least = within * within;
  for (let i = 0; i < COUNT; i++) {
    if (lit && !lit.has(i)) continue;
    const far = (screenX(i) - x) ** 2 + (screenY(i) - y) ** 2;
    if (far < least) [best, least] = [i, far];
  }
  return best;
}

function zoom(by, x = width / 2, y = height / 2) {
  const scale = Math.max(fit() * 0.8, Math.min(fit() * 400, view.scale * by));
  view.x += (x - width / 2) * (1 / view.scale - 1 / scale);
  view.y -= (y - height / 2) * (1 / view.scale - 1 / scale);
  view.scale = scale;
  draw();
}

function pan(x, y) {
  view.x -= x / view.scale;
  view.y += y / view.scale;
  draw();
}

function choose(i) {
  if (i === chosen) return;
  chosen = i;
  canvas.style.cursor = i < 0 ? "" : "pointer";
  draw();
}

function open(i) {
  if (i >= 0) location.href = "feature.html#" + POINTS.feature[i];
}

function filter() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = ORDER.filter(i => (cluster < 0 || POINTS.cluster[i] === cluster) && words.every(w => TEXTS[i].includes(w)));
  lit = words.length || cluster >= 0 ? new Set(found) : null;
  say.textContent = lit ? found.length.toLocaleString("en") + (found.length === 1 ? " feature" : " features") : "";
  if (lit && !lit.has(chosen)) chosen = -1;
  draw();
}

function step(by) {
  const among = lit ? [...lit] : ORDER;
  if (!among.length) return;
  const at = among.indexOf(chosen);
  chosen = among[((at < 0 ? (by > 0 ? -1 : 0) : at) + by + among.length) % among.length];
  Object.assign(view, { x: POINTS.x[chosen], y: POINTS.y[chosen], scale: Math.max(view.scale, 4 * fit()) });
  const [number, label] = INFO.get(POINTS.feature[chosen]);
  say.textContent = number + " " + label;
  draw();
}

function buttons() {
  const sizes = POINTS.names.map((_, n) => POINTS.cluster.filter(c => c === n).length);
  legend.append(...POINTS.names.slice(0, innerWidth < 600 ? 8 : 16).map((name, n) => {
    const item = document.createElement("li"), button = document.createElement("button"), dot = document.createElement("i");
    dot.className = "dot";
    dot.style.setProperty("--c", colour(n));
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.append(dot, (name || "cluster " + (n + 1)) + " " + sizes[n]);
    button.addEventListener("click", () => {
      cluster = cluster === n ? -1 : n;
      for (const [k, one] of [...legend.querySelectorAll("button")].entries()) one.setAttribute("aria-pressed", k === cluster);
      filter();
    });
    item.append(button);
    return item;
  }));
}

const fingers = new Map();
let moved = 0;

canvas.addEventListener("pointerdown", event => {
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, event);
  moved = 0;
});
canvas.addEventListener("pointermove", event => {
  const before = fingers.get(event.pointerId);
  if (!before) return choose(nearest(event.offsetX, event.offsetY, 14));
  const [x, y] = [event.offsetX - before.offsetX, event.offsetY - before.offsetY];
  moved += Math.abs(x) + Math.abs(y);
  const other = [...fingers.values()].find(one => one.pointerId !== event.pointerId);
  if (other) {
    const apart = one => Math.hypot(one.offsetX - other.offsetX, one.offsetY - other.offsetY) || 1;
    zoom(apart(event) / apart(before), (event.offsetX + other.offsetX) / 2, (event.offsetY + other.offsetY) / 2);
    pan(x / 2, y / 2);
  } else {
    pan(x, y);
  }
  fingers.set(event.pointerId, event);
});
canvas.addEventListener("pointerup", event => {
  fingers.delete(event.pointerId);
  if (moved > 6) return;
  const hit = nearest(event.offsetX, event.offsetY, 22);
  if (event.pointerType === "mouse" || hit === chosen) open(hit); // by touch, the first tap shows what it is
  else choose(hit);
});
canvas.addEventListener("pointercancel", event => fingers.delete(event.pointerId));
canvas.addEventListener("pointerleave", () => fingers.size || choose(-1));
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), event.offsetX, event.offsetY);
}, { passive: false });
canvas.addEventListener("keydown", event => {
  const steps = {
    ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
    "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), "0": whole,
    n: () => step(1), p: () => step(-1), Enter: () => open(chosen), Escape: () => choose(-1),
  };
  if (!steps[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  steps[event.key]();
});
for (const [id, act] of [["in", () => zoom(1.6)], ["out", () => zoom(1 / 1.6)], ["all", whole]]) {
  document.getElementById(id).addEventListener("click", act);
}
box.addEventListener("input", filter);
box.addEventListener("keydown", event => {
  if (event.key === "Enter") step(1);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
new ResizeObserver(() => {
  const first = width === 0, ratio = devicePixelRatio || 1;
  [width, height] = [canvas.clientWidth, canvas.clientHeight];
  [canvas.width, canvas.height] = [width * ratio, height * ratio];
  if (first) whole();
  else paint();
}).observe(canvas);
buttons();
