// What a person has set up: kept in the browser tab, and in a link's fragment, which no server is sent.
const KEPT = "trimtab.state";
const watching = new Set();

export const state = {
  find: { mode: "words", words: "", set: "", positive: "", negative: "" },
  parts: [],
  write: { prompt: "The best thing about the weekend is", samples: 3, tokens: 40, temperature: 1, seed: 1 },
  verify: {
    prompts: "The best thing about the weekend is\nOnce upon a time\nI opened the door and\nThe report says that\nMy neighbour told me",
    samples: 4, tokens: 40,
  },
};

/** Call `tell(what)` after every change of the part of the state that is called `what`. */
export const watch = tell => watching.add(tell);

export function change(what, values) {
  if (Array.isArray(state[what])) state[what] = values;
  else Object.assign(state[what], values);
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(state));
  } catch { /* full or off: the page works all the same */ }
  for (const tell of watching) tell(what);
}

export function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT));
  } catch {
    return null;
  }
}

/** Take over what a link or the tab had; what is of the wrong kind is left out. */
export function restore(found) {
  for (const [what, mine] of Object.entries(state)) {
    const theirs = found?.[what];
    if (Array.isArray(mine)) {
      if (Array.isArray(theirs)) state[what] = theirs.filter(isPart).map(clean);
    } else if (theirs && typeof theirs === "object") {
      for (const name of Object.keys(mine)) if (typeof theirs[name] === typeof mine[name]) mine[name] = theirs[name];
    }
  }
}

const EDITS = ["add", "clamp", "min", "max", "scale", "ablate"];
const isMember = one => Array.isArray(one) && Number.isInteger(one[0]) && one[0] >= 0 && Number.isFinite(one[1]);
const isRange = one => Array.isArray(one) && one.length === 2 && one.every(end => end === null || Number.isFinite(end));
const isDose = one => one && isRange(one.safe) && isRange(one.collapse) && Array.isArray(one.points) && one.points.every(point => Number.isFinite(point?.factor));
const isPart = one => one && typeof one.name === "string" && Number.isFinite(one.strength) && Array.isArray(one.members)
  && (one.recipe === undefined ? one.members.length > 0 && one.members.every(isMember) : /^[a-z0-9][a-z0-9._-]{0,63}$/.test(one.recipe));

/** A part with nothing in it but what parts have. */
const clean = ({ name, members, recipe, unit, edit, strength, on, dose }) => ({
  id: nextId(), name, strength, on: on !== false, members: recipe ? [] : members, ...(recipe && { recipe }),
  unit: unit === "raw" ? "raw" : "max_act", edit: EDITS.includes(edit) ? edit : "add", dose: isDose(dose) ? dose : null,
});

async function through(stream, data) {
  return new Uint8Array(await new Response(new Blob([data]).stream().pipeThrough(stream)).arrayBuffer());
}

/** The state as text for a link: JSON, deflated, base64url. */
export async function pack() {
  const packed = await through(new CompressionStream("deflate-raw"), JSON.stringify(state));
  let text = "";
  for (const one of packed) text += String.fromCharCode(one);
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export async function unpack(text) {
  const packed = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), c => c.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(await through(new DecompressionStream("deflate-raw"), packed)));
}

// The parts of the steering panel.

let last = 0;
const nextId = () => ++last;

/** A part of the panel: features with weights, or a saved recipe. `more` overrides the defaults. */
export function add(name, more) {
  const part = { id: nextId(), name, members: [], unit: "max_act", edit: "add", strength: 0.5, on: true, dose: null, ...more };
  change("parts", [...state.parts, part]);
  return part;
}

export const update = (id, values) => change("parts", state.parts.map(one => (one.id === id ? { ...one, ...values } : one)));
export const drop = id => change("parts", state.parts.filter(one => one.id !== id));

/** What the API's field `steering` says for one part, at its own strength or another; null where it does nothing. */
export function steeringOf(part, strength = part.strength) {
  if (part.recipe) return strength === 0 ? null : { recipe: part.recipe, factor: strength };
  if (part.edit === "add" && strength === 0) return null;
  const features = part.members.map(([feature, weight]) => ({
    feature, ...(part.edit !== "ablate" && { strength: round(part.edit === "scale" ? strength : weight * strength) }),
  }));
  return { features, edit: part.edit, ...(part.edit !== "ablate" && part.edit !== "scale" && { unit: part.unit }) };
}

const round = value => Number(value.toPrecision(6));

/** All parts that are switched on, or null. */
export function steering(parts = state.parts) {
  const found = parts.filter(one => one.on).map(one => steeringOf(one)).filter(Boolean);
  return found.length ? found : null;
}
