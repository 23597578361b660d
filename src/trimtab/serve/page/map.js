// The map of features: drawn on a canvas, moved by pointer, wheel, fingers or keys; without a map, says so.
import { read } from "./api.js";
import { $, button, field, h, say, show } from "./dom.js";

let built = false;

export async function open(start) {
  document.title = "Map · trimtab";
  if (built) return;
  built = true;
  const view = $("view-map"), missing = why => show(view, h("h1", {}, "Map of features"), h("p", {}, why),
    h("p", { class: "soft" }, "A map lays out features whose decoder rows point the same way near each other. ", h("code", {}, "trimtab index map FOLDER"), " adds one to an index; then start the server with ", h("code", {}, "--index FOLDER"), "."));
  if (!start.index) return missing("This server has no index of its features, and so no map.");
  if (!start.index.map) return missing("The index of this server has no map.");
  show(view, h("h1", {}, "Map of features"), h("p", { class: "soft" }, "Reading"));
  try {
    draw(view, await read("/api/map"));
  } catch (error) {
    built = false;
    missing(error.message);
  }
}

function draw(view, points) {
  const canvas = h("canvas", { tabindex: 0, role: "application", "aria-label": "Map of features", "aria-describedby": "map-keys" });
  const tip = h("div", { class: "tip", hidden: true }), plot = h("div", { class: "plot" }, canvas, tip);
  const words = h("input", { type: "search", autocomplete: "off" }), said = h("p", { class: "soft", role: "status" });
  const map = new Chart(canvas, tip, points, said);
  words.addEventListener("input", () => map.filter(words.value));
  words.addEventListener("keydown", event => event.key === "Enter" && map.step(1));
  show(view, h("h1", {}, `Map of ${points.feature.length.toLocaleString("en")} features`),
    h("p", { class: "soft" }, "Features whose decoder rows point the same way lie near each other (UMAP); colours are clusters (HDBSCAN). Far apart says more than near."),
    h("div", { class: "row" }, field("Search labels and numbers", words, "wide"), button("+", () => map.zoom(1.6), { "aria-label": "Zoom in" }),
      button("−", () => map.zoom(1 / 1.6), { "aria-label": "Zoom out" }), button("Whole map", () => map.whole())),
    said, map.legend(), plot,
    h("p", { class: "soft", id: "map-keys" }, "Drag and scroll or pinch. Keys on the map: arrows, + and −, 0 for all of it, n and p for the next and previous match, Enter opens a feature."));
}

class Chart {
  constructor(canvas, tip, points, said) {
    Object.assign(this, { canvas, tip, points, said, pen: canvas.getContext("2d") });
    Object.assign(this, { scale: 1, x: 0, y: 0, lit: null, chosen: -1, cluster: -1, words: "", width: 0, height: 0, moved: 0, fingers: new Map() });
    this.texts = points.feature.map((n, i) => `${n} ${points.labels[i]}`.toLowerCase());
    this.order = [...points.feature.keys()].sort((a, b) => points.cluster[a] - points.cluster[b]);
    this.listen();
    new ResizeObserver(() => this.resize()).observe(canvas);
    for (const change of [matchMedia("(prefers-color-scheme: dark)"), globalThis]) change.addEventListener(change === globalThis ? "look" : "change", () => this.paint());
  }

  colour = cluster => (cluster < 0 ? this.points.loose : this.points.colours[cluster % this.points.colours.length]);
  fit = () => Math.min(this.width, this.height) / 1.06;
  left = i => (this.points.x[i] - this.x) * this.scale + this.width / 2;
  top = i => (this.y - this.points.y[i]) * this.scale + this.height / 2;

  resize() {
    const first = this.width === 0, ratio = devicePixelRatio || 1, { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth) return;
    [this.width, this.height] = [clientWidth, clientHeight];
    [this.canvas.width, this.canvas.height] = [clientWidth * ratio, clientHeight * ratio];
    if (first) this.whole();
    else this.paint();
  }

  whole() {
    Object.assign(this, { scale: this.fit(), x: 0.5, y: 0.5 });
    this.paint();
  }

  paint() {
    cancelAnimationFrame(this.asked);
    this.asked = requestAnimationFrame(() => this.paintNow());
  }

  paintNow() {
    const { pen, lit, width, height } = this, ratio = devicePixelRatio || 1;
    const size = Math.min(7, Math.max(1.3, 1.5 * Math.sqrt(this.scale / this.fit())));
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    for (const faint of lit ? [true, false] : [false]) {
      pen.globalAlpha = faint ? 0.12 : 0.85;
      for (const i of this.order) {
        if (lit && lit.has(i) === faint) continue;
        const x = this.left(i), y = this.top(i), r = lit && !faint ? size + 1 : size;
        if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
        pen.fillStyle = this.colour(this.points.cluster[i]);
        pen.beginPath();
        pen.arc(x, y, r, 0, 7);
        pen.fill();
      }
    }
    pen.globalAlpha = 1;
    this.mark(size);
  }

  mark(size) {
    const { tip, pen, chosen } = this;
    tip.hidden = chosen < 0;
    if (chosen < 0) return;
    const x = this.left(chosen), y = this.top(chosen);
    pen.beginPath();
    pen.arc(x, y, size + 4, 0, 7);
    pen.strokeStyle = getComputedStyle(this.canvas).color;
    pen.lineWidth = 2;
    pen.stroke();
    tip.textContent = this.name(chosen);
    tip.style.left = Math.max(4, Math.min(x + 12, this.width - tip.offsetWidth - 4)) + "px";
    tip.style.top = (y > this.height / 2 ? y - tip.offsetHeight - 12 : y + 12) + "px";
  }

  name = i => `${this.points.feature[i]} ${this.points.labels[i]}`;

  nearest(x, y, within) {
    let best = -1, least = within * within;
    for (let i = 0; i < this.texts.length; i++) {
      if (this.lit && !this.lit.has(i)) continue;
      const far = (this.left(i) - x) ** 2 + (this.top(i) - y) ** 2;
      if (far < least) [best, least] = [i, far];
    }
    return best;
  }

  zoom(by, x = this.width / 2, y = this.height / 2) {
    const scale = Math.max(this.fit() * 0.8, Math.min(this.fit() * 400, this.scale * by));
    this.x += (x - this.width / 2) * (1 / this.scale - 1 / scale);
    this.y -= (y - this.height / 2) * (1 / this.scale - 1 / scale);
    this.scale = scale;
    this.paint();
  }

  pan(x, y) {
    this.x -= x / this.scale;
    this.y += y / this.scale;
    this.paint();
  }

  choose(i) {
    if (i === this.chosen) return;
    this.chosen = i;
    this.canvas.style.cursor = i < 0 ? "" : "pointer";
    this.paint();
  }

  open = i => { if (i >= 0) location.hash = "#feature/" + this.points.feature[i]; };

  filter(words = this.words) {
    this.words = words;
    const parts = words.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.order.filter(i => (this.cluster < 0 || this.points.cluster[i] === this.cluster) && parts.every(one => this.texts[i].includes(one)));
    this.lit = parts.length || this.cluster >= 0 ? new Set(found) : null;
    this.said.textContent = this.lit ? `${found.length.toLocaleString("en")} ${found.length === 1 ? "feature" : "features"}` : "";
    if (this.lit && !this.lit.has(this.chosen)) this.chosen = -1;
    this.paint();
  }

  step(by) {
    const among = this.lit ? [...this.lit] : this.order, at = among.indexOf(this.chosen);
    if (!among.length) return;
    this.chosen = among[((at < 0 ? (by > 0 ? -1 : 0) : at) + by + among.length) % among.length];
    Object.assign(this, { x: this.points.x[this.chosen], y: this.points.y[this.chosen], scale: Math.max(this.scale, 4 * this.fit()) });
    say(this.name(this.chosen));
    this.paint();
  }

  legend() {
    const buttons = this.points.names.slice(0, 12).map((name, n) => {
      const one = button([h("i", { class: "dot", "--c": this.colour(n) }), name || `cluster ${n + 1}`], () => {
        this.cluster = this.cluster === n ? -1 : n;
        buttons.forEach((other, k) => other.setAttribute("aria-pressed", String(k === this.cluster)));
        this.filter();
      }, { class: "small", "aria-pressed": "false" });
      return one;
    });
    return h("ul", { class: "clusters" }, buttons.map(one => h("li", {}, one)));
  }

  listen() {
    const { canvas, fingers } = this;
    canvas.addEventListener("pointerdown", event => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, event);
      this.moved = 0;
    });
    canvas.addEventListener("pointermove", event => this.drag(event));
    canvas.addEventListener("pointerup", event => {
      fingers.delete(event.pointerId);
      if (this.moved > 6) return;
      const hit = this.nearest(event.offsetX, event.offsetY, 22);
      if (event.pointerType === "mouse" || hit === this.chosen) this.open(hit); // by touch, the first tap shows what it is
      else this.choose(hit);
    });
    canvas.addEventListener("pointercancel", event => fingers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => fingers.size || this.choose(-1));
    canvas.addEventListener("wheel", event => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), event.offsetX, event.offsetY);
    }, { passive: false });
    const keys = {
      ArrowLeft: () => this.pan(60, 0), ArrowRight: () => this.pan(-60, 0), ArrowUp: () => this.pan(0, 60), ArrowDown: () => this.pan(0, -60),
      "+": () => this.zoom(1.4), "=": () => this.zoom(1.4), "-": () => this.zoom(1 / 1.4), 0: () => this.whole(),
      n: () => this.step(1), p: () => this.step(-1), Enter: () => this.open(this.chosen), Escape: () => this.choose(-1),
    };
    canvas.addEventListener("keydown", event => {
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    });
  }

  drag(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return this.choose(this.nearest(event.offsetX, event.offsetY, 14));
    const [x, y] = [event.offsetX - before.offsetX, event.offsetY - before.offsetY];
    this.moved += Math.abs(x) + Math.abs(y);
    const other = [...this.fingers.values()].find(one => one.pointerId !== event.pointerId);
    if (other) {
      const apart = one => Math.hypot(one.offsetX - other.offsetX, one.offsetY - other.offsetY) || 1;
      this.zoom(apart(event) / apart(before), (event.offsetX + other.offsetX) / 2, (event.offsetY + other.offsetY) / 2);
      this.pan(x / 2, y / 2);
    } else {
      this.pan(x, y);
    }
    this.fingers.set(event.pointerId, event);
  }
}
