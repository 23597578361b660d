// The steering panel: a slider for each feature, cluster or recipe, with the range in which text stays safe.
import { $, button, h, number, say, unique } from "./dom.js";
import { measure } from "./dose.js";
import { whileBusy } from "./jobs.js";
import { isPending } from "./samples.js";
import { drop, state, steeringOf, update, watch } from "./state.js";

const EDITS = { add: "push along it", clamp: "hold it at", min: "at least", max: "at most", scale: "multiply it by", ablate: "switch it off" };
const rows = new Map();
let list;

export function setUp() {
  list = h("ul", { class: "parts" });
  const empty = h("p", { class: "soft", id: "empty" }, "Nothing yet. Add features from the left: search for a word, or give two lists of texts.");
  $("panel").append(h("p", { class: "soft" }, "Strength 1 is the feature’s largest activation on record; below 0 pushes away from it."), empty, list);
  watch(what => {
    if (what === "parts" || what === "written" || what === "write") draw(empty);
  });
  draw(empty);
}

function draw(empty) {
  empty.hidden = state.parts.length > 0;
  for (const [id, row] of rows) {
    if (!state.parts.some(part => part.id === id && part.edit === row.edit)) {
      row.element.remove();
      rows.delete(id);
    }
  }
  for (const [place, part] of state.parts.entries()) {
    if (!rows.has(part.id)) rows.set(part.id, makeRow(part));
    const row = rows.get(part.id);
    if (list.children[place] !== row.element) list.insertBefore(row.element, list.children[place] ?? null);
    row.draw(part);
  }
}

const unitName = part => (part.recipe || part.unit === "raw" ? "× as found" : part.edit === "scale" ? "×" : "× largest");

/** How far the slider goes: 2, or as far as its dose curve or its value. */
function extent(part) {
  const asked = Math.max(2, 1.25 * Math.abs(part.strength), ...(part.dose?.points ?? []).map(point => Math.abs(point.factor)));
  return Math.ceil(asked * 2) / 2;
}

function makeRow(part) {
  const name = unique("part"), id = part.id;
  const slider = h("input", { type: "range", step: 0.05, "aria-labelledby": name });
  const exact = h("input", { type: "number", step: "any", class: "exact", "aria-label": `Strength of ${part.name}` });
  const on = h("input", { type: "checkbox", "aria-label": `Use ${part.name}`, onchange: () => update(id, { on: on.checked }) });
  const band = h("div", { class: "band", "aria-hidden": "true" }, h("i", { class: "rail" }), h("i", { class: "broken low" }), h("i", { class: "safe" }), h("i", { class: "broken high" }), h("i", { class: "zero" }), h("i", { class: "fill" }));
  const unit = h("span", { class: "unit soft" }), pending = h("span", { class: "pending", hidden: true }, "not yet written with");
  const safe = h("span", { class: "soft" }), job = h("div", { hidden: true });
  const edit = h("select", { "aria-label": `What is done with ${part.name}`, onchange: () => changeEdit(id, edit.value) },
    Object.entries(EDITS).map(([value, text]) => h("option", { value }, text)));
  edit.value = part.edit;
  edit.hidden = Boolean(part.recipe) || part.unit === "raw";
  const gauge = button("Measure the safe range", async () => {
    const now = state.parts.find(one => one.id === id);
    const found = await measure(steeringOf(now, 1), now.name, job);
    if (found) update(id, { dose: { safe: found.safe_range, collapse: found.collapse, points: found.points.map(({ factor }) => ({ factor })) } });
  }, { class: "small" });
  gauge.hidden = !["add", "clamp"].includes(part.edit);
  whileBusy(busy => { gauge.disabled = busy; });
  const set = value => Number.isFinite(value) && update(id, { strength: value });
  slider.addEventListener("input", () => set(Number(slider.value)));
  exact.addEventListener("change", () => set(Number(exact.value)));
  const remove = button("Remove", () => {
    drop(id);
    say(`${part.name} is off the panel.`);
    $("h-panel").focus();
  }, { class: "small", "aria-label": `Remove ${part.name}` });
  const numbers = part.recipe ? `recipe ${part.recipe}` : part.members.length > 1 ? `${part.members.length} features` : "#" + part.members[0][0];
  const element = h("li", { class: "part" },
    h("div", { class: "name" }, on, h("b", { id: name }, part.name), h("span", { class: "soft" }, numbers), pending),
    part.edit === "ablate" ? null : h("div", { class: "slide" }, h("div", { class: "track" }, band, slider), exact, unit),
    h("div", { class: "tools" }, edit, gauge, safe, remove), job);
  const draw = now => {
    const far = extent(now);
    [slider.min, slider.max] = [-far, far];
    slider.value = now.strength;
    if (document.activeElement !== exact) exact.value = now.strength;
    on.checked = now.on;
    unit.textContent = unitName(now);
    slider.setAttribute("aria-valuetext", `${number(now.strength)} ${unitName(now)}${now.dose ? inside(now) : ""}`);
    element.classList.toggle("off", !now.on);
    pending.hidden = !isPending(now);
    drawBand(band, now, far);
    safe.textContent = now.dose ? `text stays safe from ${number(now.dose.safe[0], 2)} to ${number(now.dose.safe[1], 2)}` : "";
  };
  return { element, draw, edit: part.edit };
}

const inside = ({ dose, strength }) => (strength >= dose.safe[0] && strength <= dose.safe[1] ? ", in the safe range" : ", outside the safe range");

function changeEdit(id, edit) {
  const strength = { add: 0.5, clamp: 1, min: 0.5, max: 0.5, scale: 2, ablate: 1 }[edit];
  update(id, { edit, strength, dose: null });
}

/** The safe range as a band under the slider, and where text has collapsed. */
function drawBand(band, { dose, strength }, far) {
  const at = value => (100 * (Math.max(-far, Math.min(far, value)) + far)) / (2 * far);
  band.style.setProperty("--left", Math.min(50, at(strength)));
  band.style.setProperty("--size", Math.abs(at(strength) - 50));
  band.classList.toggle("known", Boolean(dose));
  if (!dose) return;
  band.style.setProperty("--from", at(dose.safe[0]));
  band.style.setProperty("--to", at(dose.safe[1]));
  band.style.setProperty("--low", dose.collapse[0] === null ? 0 : at(dose.collapse[0]));
  band.style.setProperty("--high", dose.collapse[1] === null ? 100 : at(dose.collapse[1]));
}
