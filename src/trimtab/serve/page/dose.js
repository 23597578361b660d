// Dose and response: what each strength costs and does, as small charts with the safe range and the collapse marked.
import { $, button, h, number, percent, s, show } from "./dom.js";
import { run, whileBusy } from "./jobs.js";
import { state, steering, watch } from "./state.js";

const PANELS = [
  ["kl", "Cost: KL, nats per token", () => 0],
  ["perplexity", "Perplexity, times unsteered", () => 1],
  ["repetition", "Repeated 4-grams, share", dose => dose.unsteered?.repetition ?? null],
  ["response", "Response of the features", dose => dose.unsteered?.response ?? null],
];
const [WIDE, TALL, LEFT, BOTTOM, TOP, RIGHT] = [300, 176, 44, 24, 12, 12];

let chart, shown = null;

export function setUp() {
  const job = h("div", { hidden: true });
  chart = h("div");
  const go = button("Measure all that is on the panel", async () => {
    const wanted = steering();
    if (!wanted) {
      show(job, h("p", { class: "soft" }, "Nothing on the panel is switched on."));
      job.hidden = false;
      return;
    }
    await measure(wanted, "everything on the panel, as the sliders stand", job);
  });
  whileBusy(busy => { go.disabled = busy; });
  $("dose").append(h("p", { class: "soft" }, "Writes text at strengths from weak to ruinous, both ways, and reads it back. That takes a minute or more."), go, job, chart);
  watch(what => what === "parts" && shown?.part && draw());
}

/** Run the job for `wanted` and draw what came of it; the curve, or null. */
export async function measure(wanted, name, place) {
  const steerings = Array.isArray(wanted) ? wanted : [wanted];
  const job = await run("/api/dose", { steering: steerings, texts: 8 }, place, "Measuring the dose");
  if (!job) return null;
  const part = Array.isArray(wanted) ? null : state.parts.find(one => one.name === name)?.id;
  shown = { dose: job.result, name, part };
  draw();
  return job.result;
}

function draw() {
  const { dose, name, part } = shown;
  const now = part ? state.parts.find(one => one.id === part)?.strength ?? null : 1;
  const panels = PANELS.filter(([key]) => dose.points.some(point => point[key] !== null))
    .map(([key, title, level]) => panel(dose, key, title, level(dose), now));
  show(chart, h("h3", {}, "Dose of ", name), h("p", {}, words(dose, part)),
    h("div", { class: "charts" }, panels),
    h("p", { class: "soft legend" }, h("i", { class: "key safe" }), "text stays safe ", h("i", { class: "key broken" }), "text has collapsed ", h("i", { class: "key now" }), "the slider now ", h("i", { class: "key plain" }), "unsteered"),
    h("details", {}, h("summary", {}, "The numbers"), table(dose)));
}

/** Where text stays safe and where it collapses, in words. */
function words({ safe_range: [low, high], collapse: [down, up] }, part) {
  const unit = part ? "" : " times what the sliders say";
  const stays = low === 0 && high === 0 ? "Text is safe at no strength that was measured" : `Text stays safe from ${number(low)} to ${number(high)}${unit}`;
  const ends = [down, up].filter(one => one !== null).map(one => number(one));
  return `${stays}${ends.length ? ` and collapses at ${ends.join(" and ")}` : ""}. Safe: at most 1.65 times as perplexing to the unsteered model as its own text, and at most 10 % more repetition. Collapsed: 2.7 times, or half of it repetition.`;
}

function scale(values, from, to) {
  const low = Math.min(...values), high = Math.max(...values), size = high - low || 1;
  return value => from + ((value - low) / size) * (to - from);
}

function panel(dose, key, title, level, now) {
  const points = dose.points.filter(point => point[key] !== null).map(point => [point.factor, point[key]]);
  if (level !== null && !points.some(([x]) => x === 0)) points.push([0, level]);
  points.sort((a, b) => a[0] - b[0]);
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  const x = scale(xs, LEFT, WIDE - RIGHT), y = scale([...ys, 0], TALL - BOTTOM, TOP);
  const [low, high] = dose.safe_range, [down, up] = dose.collapse;
  const band = (a, b, kind) => s("rect", { x: x(a), width: Math.max(0, x(b) - x(a)), y: TOP, height: TALL - BOTTOM - TOP, class: kind });
  const tick = (value, place, attributes) => s("text", { ...attributes, ...place }, number(value, 2));
  return h("figure", {}, h("figcaption", {}, title), s("svg", { viewBox: `0 0 ${WIDE} ${TALL}`, role: "img", "aria-label": `${title} against strength, from ${number(xs[0])} to ${number(xs.at(-1))}` },
    (low !== 0 || high !== 0) && band(low, high, "safe"),
    down !== null && band(xs[0], down, "broken"),
    up !== null && band(up, xs.at(-1), "broken"),
    s("path", { class: "axis", d: `M${LEFT},${TOP} V${TALL - BOTTOM} H${WIDE - RIGHT}` }),
    level !== null && s("path", { class: "plain", d: `M${LEFT},${y(level)} H${WIDE - RIGHT}` }),
    now !== null && now >= xs[0] && now <= xs.at(-1) && s("path", { class: "now", d: `M${x(now)},${TOP} V${TALL - BOTTOM}` }),
    s("polyline", { points: points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ") }),
    points.map(([a, b]) => s("circle", { cx: x(a), cy: y(b), r: 3 }, s("title", {}, `strength ${number(a)}: ${number(b, 4)}`))),
    [xs[0], 0, xs.at(-1)].filter((value, i, all) => all.indexOf(value) === i).map(value => tick(value, { x: x(value), y: TALL - 7 }, { "text-anchor": "middle" })),
    [...new Set([0, Math.max(...ys)])].map(value => tick(value, { x: LEFT - 6, y: y(value) + 4 }, { "text-anchor": "end" }))));
}

function table(dose) {
  const state = point => (point.factor >= dose.safe_range[0] && point.factor <= dose.safe_range[1] ? "safe" : "");
  const head = ["strength", "KL", "perplexity", "repeated", "response", ""];
  return h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Dose curve as a table" }, h("table", {},
    h("thead", {}, h("tr", {}, head.map(one => h("th", { scope: "col" }, one)))),
    h("tbody", {}, dose.points.map(point => h("tr", {}, h("th", { scope: "row" }, number(point.factor)),
      h("td", {}, number(point.kl)), h("td", {}, number(point.perplexity)), h("td", {}, point.repetition === null ? "–" : percent(point.repetition)),
      h("td", {}, number(point.response)), h("td", {}, state(point)))))));
}
