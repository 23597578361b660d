// All features of the index, a page at a time, or those that a search finds.
import { read } from "./api.js";
import { $, button, field, h, percent, number, show } from "./dom.js";
import { change, state } from "./state.js";

const PAGE = 50;
let built = false, from = 0;
const place = {};

export function open(start) {
  document.title = "Features · trimtab";
  if (!built) build(start);
}

function build(start) {
  built = true;
  const view = $("view-features");
  view.append(h("h1", {}, "Features"));
  if (!start.index) {
    view.append(h("p", {}, "This server has no index of its features. ", h("code", {}, "trimtab index build"), " makes one."));
    return;
  }
  const words = h("input", { type: "search", autocomplete: "off", value: "" });
  place.order = h("select", {}, Object.entries({ number: "Number", density: "How often it fires", strength: "How strongly it fires" })
    .map(([value, text]) => h("option", { value }, text)));
  const jump = h("input", { type: "number", min: 0, max: start.index.features - 1 });
  place.said = h("p", { class: "soft", role: "status" });
  place.list = h("ul", { class: "found" });
  place.before = button("← Before", () => turn(-PAGE));
  place.after = button("Next →", () => turn(PAGE));
  const search = h("form", { class: "row" }, field("Search labels, tokens and examples", words, "wide"), h("button", { class: "main" }, "Search"),
    field("Order", place.order));
  search.addEventListener("submit", event => {
    event.preventDefault();
    if (words.value.trim()) find(words.value.trim());
    else turn(-from);
  });
  place.order.addEventListener("change", () => {
    words.value = "";
    turn(-from);
  });
  const go = h("form", { class: "row" }, field("Feature number", jump), h("button", {}, "Open"));
  go.addEventListener("submit", event => {
    event.preventDefault();
    if (jump.value !== "") location.hash = "#feature/" + jump.value;
  });
  view.append(h("p", { class: "soft" }, start.index.about), h("div", { class: "row" }, search, go), place.said, place.list, h("p", { class: "row" }, place.before, place.after));
  turn(0);
}

const row = (one, right) => h("li", {}, h("a", { href: "#feature/" + one.feature },
  h("span", { class: "number" }, one.feature), h("span", { class: "name" }, one.label || "no label"), h("span", { class: "share" }, right)));

async function turn(by) {
  from = Math.max(0, from + by);
  try {
    const found = await read(`/api/features?order=${place.order.value}&start=${from}&most=${PAGE}`);
    place.said.textContent = `${(from + 1).toLocaleString("en")} to ${(from + found.features.length).toLocaleString("en")} of ${found.total.toLocaleString("en")} features that ever fired`;
    show(place.list, found.features.map(one => row(one, place.order.value === "strength" ? number(one.max) : percent(one.density))));
    place.before.disabled = from === 0;
    place.after.disabled = from + PAGE >= found.total;
  } catch (error) {
    place.said.textContent = error.message;
  }
}

async function find(words) {
  place.said.textContent = "Searching";
  try {
    const { features } = await read("/api/features/search?most=100&q=" + encodeURIComponent(words));
    place.said.textContent = `${features.length} features for “${words}”, best first`;
    show(place.list, features.map(one => row(one, one.why.replace(/^[^:]*: /, "").slice(0, 60))));
    place.before.disabled = place.after.disabled = true;
  } catch (error) {
    place.said.textContent = error.message;
  }
}
