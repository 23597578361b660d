// A feature as a card: what it fires on, what it promotes, examples, a histogram, and the way to the panel.
import { button, h, number, percent, s, say, visible } from "./dom.js";
import { example } from "./highlights.js";
import { add, state } from "./state.js";

/** What a feature is called: what it fires on; without a label its number. */
export const title = card => (card.label || "").split(" → ")[0].trim() || `feature ${card.feature}`;

const ROLES = { reads: "only reads", writes: "writes", both: "reads and writes" };

const short = (text, most = 48) => (text.length > most ? text.slice(0, most - 1).replace(/,?\s*\S*$/, "") + " …" : text);

/** Put a feature on the panel, once. */
export function addFeature(card, strength = 0.5) {
  if (state.parts.some(one => one.members.length === 1 && one.members[0][0] === card.feature)) {
    say(`Feature ${card.feature} is on the panel already.`);
    return;
  }
  add(short(title(card)), { members: [[card.feature, 1]], strength });
  say(`Feature ${card.feature} is on the panel.`);
}

export function histogram(bins, label = "Histogram of activations") {
  const top = Math.log1p(Math.max(...bins.map(bin => bin[2]))), wide = 100 / bins.length;
  const bars = bins.map(([low, high, n], i) => {
    const tall = (40 * Math.log1p(n)) / top;
    return s("rect", { x: (i * wide).toFixed(2), y: (40 - tall).toFixed(2), width: (0.88 * wide).toFixed(2), height: tall.toFixed(2) },
      s("title", {}, `${number(low)} to ${number(high)}: ${n.toLocaleString("en")} tokens`));
  });
  return h("figure", { class: "histogram" },
    s("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": label }, bars),
    h("figcaption", {}, h("span", {}, number(bins[0][0])), h("span", {}, "activation, logarithmic"), h("span", {}, number(bins.at(-1)[1]))));
}

export const chips = words => h("ul", { class: "chips" }, words.map(word => h("li", {}, h("code", {}, visible(word).replace(/^␣/, "")))));

export function badges(card) {
  return [
    card.score != null && h("span", { class: "badge", title: "How well the label tells where the feature fires: 0.5 is chance, 1 is always" }, `label ${card.score.toFixed(2)}`),
    card.reads_writes && h("span", { class: "badge", title: "Whether it makes the model write what it promotes, as far as one token tells" }, ROLES[card.reads_writes] ?? card.reads_writes),
    card.density != null && h("span", { class: "soft" }, `fires on ${percent(card.density)} of tokens`),
  ].filter(Boolean);
}

/** The card of one feature; `more` are elements about why it is here. */
export function card(one, ...more) {
  const top = one.max || one.max_act || Math.max(1e-9, ...(one.examples ?? []).flatMap(text => text.values));
  const examples = (one.examples ?? []).map(text => example(text, top));
  const rest = [
    ...examples.slice(1),
    one.histogram?.length && histogram(one.histogram),
    one.words?.length && h("p", { class: "soft" }, "Fires most on: ", one.words.map(visible).join("  ")),
  ].filter(Boolean);
  return h("article", { class: "card", "data-feature": one.feature },
    h("header", {}, h("h3", {}, h("a", { href: "#feature/" + one.feature, title: "Everything about it" }, title(one))),
      h("span", { class: "soft" }, "#" + one.feature)),
    h("p", { class: "facts" }, badges(one), more),
    one.promoted?.length ? h("div", { class: "promotes" }, h("span", { class: "soft" }, "promotes"), chips(one.promoted.slice(0, 6))) : null,
    examples[0] ?? null,
    h("footer", {}, button("Add to the panel", () => addFeature(one), { class: "add", "aria-label": `Add feature ${one.feature} to the panel` }),
      rest.length ? h("details", {}, h("summary", {}, "more"), rest) : null));
}

/** The first few cards and a button for the others. */
export function folded(cards, few = 4) {
  const rest = cards.slice(few);
  const more = rest.length && button(`Show ${rest.length} more`, () => more.replaceWith(...rest));
  return [...cards.slice(0, few), more].filter(Boolean);
}
