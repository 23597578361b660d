// Everything about one feature: numbers, histogram, tokens, neighbours, and examples over its whole range.
import { read } from "./api.js";
import { addFeature, badges, chips, histogram, title } from "./cards.js";
import { $, button, h, number, percent, show, visible } from "./dom.js";
import { marked } from "./highlights.js";

const KINDS = { top: "Strongest", random: "Random firings" };
let asked = 0;

export async function open(start, index) {
  const view = $("view-feature"), mine = ++asked;
  document.title = `Feature ${index} · trimtab`;
  show(view, h("h1", {}, `Feature ${index}`), h("p", { class: "soft" }, "Reading"));
  try {
    const found = await read("/api/features/" + index);
    const others = [...(found.lens?.neighbours ?? []), ...found.partners.slice(0, 10)].map(([n]) => n);
    const names = others.length ? await read("/api/features?only=" + [...new Set(others)].join(",")) : { features: [] };
    if (mine === asked) draw(view, start, found, new Map(names.features.map(one => [one.feature, one.label])));
  } catch (error) {
    show(view, h("h1", {}, `Feature ${index}`), h("p", { class: "trouble", role: "alert" }, error.message), h("p", {}, h("a", { href: "#features" }, "All features")));
  }
}

function draw(view, start, found, names) {
  const [label] = found.labels, words = found.words.slice(0, 4).map(word => word.text.trim());
  const card = { feature: found.index, label: label?.text ?? words.join(", "), score: label?.score, density: found.density };
  const last = start.index.features - 1, to = n => h("a", { href: "#feature/" + n }, n < found.index ? "← " + n : n + " →");
  const lens = found.lens;
  show(view,
    h("nav", { class: "row apart", "aria-label": "Neighbouring numbers" }, h("a", { href: "#features" }, "All features"),
      h("span", { class: "row" }, found.index > 0 && to(found.index - 1), found.index < last && to(found.index + 1))),
    h("h1", {}, title(card), " ", h("span", { class: "soft" }, "#" + found.index)),
    h("p", { class: "facts" }, badges(card)),
    h("p", { class: "row" }, button("Add to the panel", () => addFeature(card), { class: "main" }), h("a", { href: "#steer" }, "Go and steer")),
    found.count === 0 && h("p", {}, "It never fired in the texts of the index."),
    h("div", { class: "columns" },
      found.histogram.length > 0 && box("Activations", histogram(found.histogram),
        h("p", { class: "soft" }, `${found.count.toLocaleString("en")} tokens; mean ${number(found.mean)}, largest ${number(found.max)}`)),
      found.words.length > 0 && box("Fires on", bars(found.words.slice(0, 10).map(word => [h("code", {}, visible(word.text)), `${word.count.toLocaleString("en")} · ${percent(word.count / Math.max(1, word.seen))}`, word.count / found.count]))),
      lens && box("Promotes", chips(lens.promoted.map(([text]) => text)), h("h3", {}, "Suppresses"), chips(lens.suppressed.map(([text]) => text))),
      lens?.neighbours.length > 0 && box("Nearest decoder rows", bars(lens.neighbours.map(([n, cosine]) => [link(n, names), cosine.toFixed(2), Math.max(0, cosine)]))),
      found.partners.length > 0 && box("Fires together with", bars(found.partners.slice(0, 10).map(([n, count]) => [link(n, names), percent(count / found.count), count / found.count])))),
    groups(found.examples).map(([heading, some]) => [
      h("h2", {}, heading, " ", h("small", {}, String(some.length))),
      h("ol", { class: "examples" }, some.map(one => h("li", {}, h("span", { class: "value" }, number(one.value, 4)),
        h("span", { class: "text" }, marked(one.tokens, one.values.map(value => value / found.max)))))),
    ]));
}

const box = (heading, ...inside) => h("section", { class: "card" }, h("h3", {}, heading), inside);
const link = (n, names) => h("a", { href: "#feature/" + n }, `${n} ${names.get(n) ?? ""}`);
const bars = rows => h("ul", { class: "bars" }, rows.map(([what, value, share]) => h("li", { "--s": Math.min(1, share).toFixed(3) }, h("span", {}, what), h("span", {}, value))));

/** Examples under headings: the strongest, the bands from strong to weak, random ones. */
function groups(examples) {
  const bands = [...new Set(examples.filter(one => one.kind === "band").map(one => one.low))].sort((a, b) => b - a);
  const of = kind => [KINDS[kind], examples.filter(one => one.kind === kind)];
  const between = bands.map(low => {
    const some = examples.filter(one => one.kind === "band" && one.low === low);
    return [`Between ${number(low)} and ${number(some[0].high)}`, some];
  });
  return [of("top"), ...between, of("random")].filter(([, some]) => some.length);
}
