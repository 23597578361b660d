// Unsteered and steered texts side by side, as they are written; every sample is shown and none is picked.
import { events, post, read } from "./api.js";
import { $, button, field, h, percent, say, show } from "./dom.js";
import { marked, readable } from "./highlights.js";
import { whileBusy } from "./jobs.js";
import { change, state, steering, steeringOf, watch } from "./state.js";

let model = "", sae = "";
let written = null; // what the texts that are shown were written with: { settings, parts, steering }
let busy = false; // whether a job of this page runs
let stop = null; // ends the texts under way
let plain = null; // finished unsteered texts and what they were written with: { settings, texts }
const sides = { unsteered: [], steered: [] };
const place = {};

/** Whether a part has changed since the texts were written. */
export function isPending(part) {
  if (written === null) return false;
  return JSON.stringify(part.on ? steeringOf(part) : null) !== (written.parts[part.id] ?? "null");
}

const settingsNow = () => JSON.stringify(state.write);
const partsNow = () => Object.fromEntries(state.parts.map(one => [one.id, JSON.stringify(one.on ? steeringOf(one) : null)]));

export function setUp(start) {
  [model, sae] = [start.model.name, start.sae?.name];
  const { limits } = start;
  const prompt = h("textarea", { rows: 2, value: state.write.prompt, oninput: () => change("write", { prompt: prompt.value }) });
  const amounts = {
    samples: amount("Samples", 1, Math.min(8, limits.rows), 1, "samples"),
    tokens: amount("Tokens", 1, limits.max_tokens, 1, "tokens"),
    temperature: amount("Temperature", 0, 5, 0.1, "temperature"),
    seed: amount("Seed", 0, 2 ** 31, 1, "seed"),
  };
  const dice = button("Another seed", () => {
    const seed = Math.floor(Math.random() * 1e6);
    amounts.seed.querySelector("input").value = seed;
    change("write", { seed });
  });
  Object.assign(place, {
    go: h("button", { class: "main" }, "Write"), stop: button("Stop", () => stop?.abort(), { disabled: true }),
    status: h("span", { class: "soft" }), stale: h("span", { class: "pending", hidden: true }, "the settings have changed since these texts were written"),
    shade: h("select", { onchange: colour }), texts: h("div", { class: "samples" }), sums: h("p", { class: "soft" }),
    trouble: h("p", { class: "trouble", role: "alert", hidden: true }),
  });
  place.shading = field("Colour by", place.shade, "shading");
  place.shading.hidden = true;
  const form = h("form", { onsubmit: event => { event.preventDefault(); write(); } }, field("Prompt", prompt),
    h("div", { class: "amounts" }, Object.values(amounts), dice),
    h("div", { class: "row" }, place.go, place.stop, place.status, place.stale));
  $("write").append(form, place.trouble, h("div", { class: "row apart" }, place.sums, place.shading), place.texts);
  show(place.texts, h("p", { class: "soft invite" }, "Press Write: the model continues the prompt with and without what is on the panel, from the same random numbers."));
  watch(mark);
  whileBusy(now => {
    busy = now;
    progress();
  });
}

function amount(label, min, max, step, name) {
  const input = h("input", { type: "number", min, max, step: name === "temperature" ? "any" : step, required: true, value: state.write[name] });
  input.addEventListener("input", () => input.checkValidity() && change("write", { [name]: Number(input.value) }));
  return field(label, input);
}

function mark() {
  place.stale.hidden = written === null || (written.settings === settingsNow() && written.steering === JSON.stringify(steering()));
}

async function write() {
  stop?.abort();
  const mine = (stop = new AbortController());
  const wanted = steering(), settings = settingsNow(), asked = { ...state.write };
  written = { settings, steering: JSON.stringify(wanted), parts: partsNow() };
  place.trouble.hidden = true;
  place.stop.disabled = false;
  place.sums.textContent = "";
  layOut(asked, wanted !== null);
  change("parts", state.parts);
  const names = wanted ? ["unsteered", "steered"] : ["unsteered"];
  say(`Writing ${names.length * asked.samples} texts.`);
  try {
    const features = await featuresOf(state.parts.filter(one => one.on), mine.signal);
    await Promise.all(names.map(name => side(name, asked, settings, name === "steered" ? wanted : null, features, mine.signal)));
    if (!wanted) place.sums.textContent = "Nothing on the panel is switched on, so only the unsteered model wrote.";
    say("All texts are written.");
  } catch (error) {
    mine.abort();
    if (error.name !== "AbortError") [place.trouble.textContent, place.trouble.hidden] = [error.message, false];
    else say("Stopped.");
    for (const one of Object.values(sides).flat()) one.figure.classList.remove("busy");
  } finally {
    if (stop === mine) [place.stop.disabled, stop] = [true, null];
    progress();
  }
}

/** An empty place for every text. */
function layOut(asked, both) {
  const text = (name, i) => {
    const caption = h("figcaption", {}, h("b", {}, name), h("span", { class: "soft" })), body = h("div", { class: "text" });
    const figure = h("figure", { class: `busy ${name}` }, caption, body);
    const one = { figure, body, note: caption.lastChild, prompt: asked.prompt, text: "", done: false, reading: null };
    show(body, h("span", { class: "prompt" }, asked.prompt), h("span", { class: "new" }));
    readable(body, `Sample ${i + 1}, ${name}. Arrow keys walk through the coloured tokens.`);
    return one;
  };
  for (const name of ["unsteered", "steered"]) {
    sides[name] = name === "steered" && !both ? [] : Array.from({ length: asked.samples }, (_, i) => text(name, i));
  }
  show(place.texts, sides.unsteered.map((one, i) => h("article", { class: "pair", "aria-label": `Sample ${i + 1}` }, one.figure, sides.steered[i]?.figure)));
}

/** One request with all samples of one side; then its texts are read by the unsteered model. */
async function side(name, asked, settings, wanted, features, signal) {
  const mine = sides[name];
  if (name === "unsteered" && plain?.settings === settings) {
    plain.texts.forEach((text, i) => put(mine[i], text, true));
  } else {
    const body = {
      model, prompt: asked.prompt, n: asked.samples, max_tokens: asked.tokens, temperature: asked.temperature,
      seed: asked.seed, stream: true, ...(wanted && { steering: wanted }),
    };
    for await (const { choices } of events("/v1/completions", body, signal)) {
      for (const { index, text, finish_reason } of choices) put(mine[index], mine[index].text + text, finish_reason !== null);
    }
    if (name === "unsteered") plain = { settings, texts: mine.map(one => one.text) };
  }
  const passages = mine.filter(one => one.text).map(one => ({ prompt: one.prompt, text: one.text }));
  if (!features.length || !passages.length) return;
  const found = await post("/api/readings", { passages, features: features.map(one => one.feature) }, signal);
  mine.filter(one => one.text).forEach((one, i) => { one.reading = found.readings[i]; });
  offer(features);
  colour();
}

function put(one, text, done) {
  Object.assign(one, { text, done });
  one.body.lastChild.textContent = text;
  one.figure.classList.toggle("busy", !done);
  progress();
}

function progress() {
  const all = Object.values(sides).flat(), done = all.filter(one => one.done).length;
  place.status.textContent = stop ? `${done} of ${all.length} texts are done${busy ? "; they wait for the next step of the job that runs" : ""}` : done < all.length ? `stopped: ${done} of ${all.length} texts are complete` : "";
}

/** The features of the parts, with what to call them. */
async function featuresOf(parts, signal) {
  const found = new Map();
  for (const part of parts) {
    let members = part.members.map(([feature]) => feature);
    if (part.recipe) {
      const { edits } = await read("/api/recipes/" + part.recipe, { signal });
      members = edits.filter(edit => edit.sae?.name === sae).flatMap(edit => edit.features);
    }
    for (const feature of members) if (!found.has(feature)) found.set(feature, members.length > 1 ? `${part.name}, #${feature}` : `${part.name} #${feature}`);
  }
  return [...found].slice(0, 64).map(([feature, name]) => ({ feature, name }));
}

function offer(features) {
  const before = place.shade.value;
  const all = features.length > 1 ? [h("option", { value: "all" }, "whichever fires most")] : [];
  show(place.shade, all, features.map((one, i) => h("option", { value: String(i) }, one.name)));
  if ([...place.shade.options].some(one => one.value === before)) place.shade.value = before;
  place.shading.hidden = false;
}

/** Colour every text that has been read by the feature that is chosen. */
function colour() {
  const sums = [];
  for (const [name, texts] of Object.entries(sides)) {
    const read = texts.filter(one => one.reading);
    for (const one of read) {
      const { tokens, shares } = one.reading, chosen = place.shade.value;
      const values = chosen === "all" ? tokens.map((_, t) => Math.max(...shares.map(row => row[t]))) : shares[Number(chosen)];
      one.rate = values.filter(value => value > 0).length / Math.max(1, values.length);
      one.note.textContent = `fires on ${percent(one.rate)}`;
      if (tokens.join("").trim() === one.text.trim()) show(one.body.lastChild, marked(tokens, values));
    }
    if (read.length) sums.push(`${name} ${percent(read.reduce((sum, one) => sum + one.rate, 0) / read.length)}`);
  }
  place.sums.textContent = sums.length ? `Tokens on which it fires when the text is fed back to the unsteered model: ${sums.join(", ")}. A first look; Verify compares it with controls.` : "";
}
