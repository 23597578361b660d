// Finding features: by words in the index, or by a contrast of texts.
import { read } from "./api.js";
import { card, folded } from "./cards.js";
import { contrastForm } from "./contrast.js";
import { $, field, h, show } from "./dom.js";
import { change, state } from "./state.js";

/** Build the section; `start` is what the server said at /api/start. */
export function setUp(start) {
  const place = $("find"), results = h("div", { class: "results" }), said = h("p", { class: "soft", role: "status" });
  const modes = { words: wordsForm(said, results, start), contrast: contrastForm(start, said, results) };
  const mode = start.index && state.find.mode !== "contrast" ? "words" : "contrast";
  const choose = h("fieldset", { class: "segments" }, h("legend", { class: "hidden" }, "How to find"),
    Object.entries({ words: "By words", contrast: "By a contrast" }).map(([name, text]) => h("label", {},
      h("input", { type: "radio", name: "mode", value: name, checked: name === mode, onchange: () => turn(name) }), h("span", {}, text))));
  const turn = name => {
    for (const [one, form] of Object.entries(modes)) form.hidden = one !== name;
    if (state.find.mode !== name) change("find", { mode: name });
  };
  place.append(choose, ...Object.values(modes), said, results);
  turn(mode);
  if (mode === "words") showCards(results, said, start.example.cards, state.find.words);
}

function wordsForm(said, results, start) {
  const words = h("input", { type: "search", value: state.find.words || start.example.words, autocomplete: "off", enterkeyhint: "search" });
  const form = h("form", { class: "row", onsubmit: event => event.preventDefault() },
    field("Words: what it fires on, promotes or is called", words, "wide"), h("button", { class: "main" }, "Search"));
  if (!start.index) {
    words.disabled = form.querySelector("button").disabled = true;
    form.append(h("p", { class: "soft" }, "This server has no index of its features, so there is nothing to search."));
  }
  state.find.words ||= start.example.words;
  form.addEventListener("submit", async () => {
    change("find", { words: words.value.trim() });
    if (!state.find.words) return;
    said.textContent = "Searching";
    try {
      const found = await read("/api/cards?most=24&q=" + encodeURIComponent(state.find.words));
      showCards(results, said, found.cards, state.find.words);
    } catch (error) {
      said.textContent = error.message;
    }
  });
  return form;
}

function showCards(results, said, found, words) {
  said.textContent = found.length ? `${found.length} features for “${words}”, best first` : `No feature has “${words}” in its label, words or examples.`;
  if (!words) said.textContent = "A few features to begin with";
  const cards = found.map(one => card(one));
  show(results, folded(cards));
}
