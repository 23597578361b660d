// Two lists of texts -> a job on the server -> clusters and features as cards, and the recipe that was found.
import { read } from "./api.js";
import { card, folded } from "./cards.js";
import { button, count, field, h, number, say, show } from "./dom.js";
import { run, whileBusy } from "./jobs.js";
import { add, change, state } from "./state.js";

const lines = text => text.split("\n").map(line => line.trim()).filter(Boolean);

export function contrastForm(start, said, results) {
  const box = (name, value) => h("textarea", { rows: 6, value, spellcheck: "false", oninput: () => change("find", { [name]: boxes[name].value, set: "" }) });
  const boxes = {};
  for (const name of ["positive", "negative"]) boxes[name] = box(name, state.find[name]);
  const set = h("select", {}, h("option", { value: "" }, "your own texts, below"),
    start.sets.map(one => h("option", { value: one.name, title: one.sides.join(" / ") }, `${one.name}: ${one.sides[0]}`)));
  set.value = state.find.set;
  set.addEventListener("change", async () => {
    if (!set.value) return;
    const found = await read("/api/sets/" + set.value);
    const texts = { positive: found.positive.join("\n"), negative: found.negative.join("\n") };
    for (const name of ["positive", "negative"]) boxes[name].value = texts[name];
    change("find", { ...texts, set: set.value });
  });
  const go = h("button", { class: "main" }, "Find features");
  const job = h("div", { hidden: true });
  whileBusy(busy => { go.disabled = busy || !start.sae; });
  const form = h("form", {}, field("A shipped set", set), field("Texts that show it, one a line (8 or more)", boxes.positive),
    field("Texts that do not", boxes.negative), go, job);
  form.addEventListener("submit", async event => {
    event.preventDefault();
    const body = { positive: lines(boxes.positive.value), negative: lines(boxes.negative.value), method: "mean_difference" };
    show(results);
    said.textContent = "";
    const done = await run("/api/contrast", body, job, "Finding features");
    if (done) await showFinding(done.result, start, said, results);
  });
  return form;
}

/** The finding as cards, one group a cluster. */
async function showFinding(found, start, said, results) {
  const features = found.features[0];
  if (!features.length) {
    said.textContent = "No feature tells the two sides apart on texts that chose nothing. More or clearer texts may help; or the SAE has no feature for it.";
    return;
  }
  const known = await briefs(features, start);
  const clusters = found.clusterings[0].clusters.map((one, i) => cluster(one, i, features, known));
  const loose = features.filter(one => one.cluster === null);
  if (loose.length) clusters.push([h("h3", { class: "group" }, clusters.length ? "In no cluster" : "The features"), folded(loose.map(one => featureCard(one, known)))]);
  const groups = found.clusterings[0].clusters.length;
  said.textContent = count(features.length, "feature") + (groups ? ` in ${count(groups, "cluster")}` : "");
  say(said.textContent);
  show(results, recipe(found), clusters);
}

async function briefs(features, start) {
  if (!start.index) return new Map();
  const found = await read("/api/cards?features=" + features.map(one => one.index).slice(0, 64).join(","));
  return new Map(found.cards.map(one => [one.feature, one]));
}

function cluster(one, i, features, known) {
  const inside = features.filter(feature => one.features.includes(feature.index));
  const words = one.words.slice(0, 4).join(", ");
  const put = button("Add the cluster", () => {
    add(words || `cluster ${i + 1}`, { members: inside.map(feature => [feature.index, feature.sign]), strength: 0.2 });
    say("The cluster is on the panel.");
  });
  return [
    h("h3", { class: "group" }, `Cluster ${i + 1}: ${words}`),
    h("p", { class: "soft" }, `${count(inside.length, "feature")}, stability ${number(one.stability, 2)} `, put),
    folded(inside.map(feature => featureCard(feature, known)), 2),
  ];
}

function featureCard(one, known) {
  const brief = known.get(one.index);
  const merged = {
    feature: one.index, label: one.words.join(", "), density: one.density, promoted: one.promoted,
    ...brief, max: brief?.max || one.peak,
    examples: [...one.examples.map(text => ({ tokens: text.tokens, values: text.values })), ...(brief?.examples ?? [])].slice(0, 4),
  };
  return card(merged, h("span", { class: "badge", title: "Area under the ROC curve on held-out texts: 0.5 is chance" }, `AUC ${one.held_auc.toFixed(2)}`),
    one.sign < 0 && h("span", { class: "badge" }, "other side"));
}

/** What was found to steer with, and what that does on held-out texts. */
function recipe(found) {
  const members = found.edits.flatMap(edit => edit.features.map((feature, i) => [feature, edit.strengths[i]]));
  if (!found.chosen || !members.length) return h("p", { class: "soft" }, "No recipe came of it.");
  const { shift, low, high } = found.test, plain = found.baseline_test.shift;
  const clear = low > 0 ? "" : " It cannot be told from chance.";
  return h("div", { class: "card recipe" }, h("h3", {}, "The recipe that was found"),
    h("p", {}, `${count(members.length, "feature")} (${found.chosen}). On texts that chose nothing it makes the positive side ${number(shift)} nats per token likelier (95 %: ${number(low)} to ${number(high)}).${clear} The mean difference of the two sides, without features, does ${number(plain)} at the same cost.`),
    button("Add it to the panel", () => {
      add(`found: ${found.chosen}`, { members, unit: "raw", strength: 1 });
      say("The recipe is on the panel.");
    }, { class: "main" }));
}
