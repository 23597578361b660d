// Saving recipes on the server, recipe files, and links that restore everything.
import { post, read } from "./api.js";
import { $, button, field, h, show } from "./dom.js";
import { add, pack, state, steering } from "./state.js";
import { download } from "./verdict.js";

const LONG = 8000; // characters of an address that most programs pass on unharmed

export function setUp(start) {
  const said = h("p", { class: "soft", role: "status" });
  const recipes = h("select", {});
  const name = h("input", { type: "text", pattern: "[a-z0-9][a-z0-9._\\-]{0,63}", required: true, autocomplete: "off", placeholder: "my-recipe", title: "a-z, 0-9, dot, dash and underscore; the first a letter or digit" });
  const list = names => {
    show(recipes, names.length ? names.map(one => h("option", { value: one }, one)) : h("option", { value: "" }, "none yet"));
    for (const one of [load, file]) one.disabled = !names.length;
  };
  const attempt = work => async event => {
    event?.preventDefault();
    said.className = "soft";
    try {
      const done = await work();
      if (done) said.textContent = done;
    } catch (error) {
      said.className = "trouble";
      said.textContent = error.message;
    }
  };
  const refresh = async chosen => {
    list((await read("/api/recipes")).recipes);
    if (chosen) recipes.value = chosen;
  };
  const save = h("form", { class: "row", onsubmit: attempt(async () => {
    const wanted = steering();
    if (!wanted) return "Nothing on the panel is switched on.";
    const made = await post("/api/recipes", { id: name.value, steering: wanted });
    await refresh(made.id);
    return `Saved as ${made.id}. API: "steering": "${made.id}"`;
  }) }, field("Save the panel as", name), h("button", { class: "main" }, "Save"));
  const load = button("Add to the panel", attempt(async () => {
    const { id, edits } = await read("/api/recipes/" + recipes.value);
    add(id, { recipe: id, strength: 1 });
    return `${id} is on the panel (${edits.length} ${edits.length === 1 ? "edit" : "edits"}).`;
  }));
  const file = button("Download the file", attempt(() => download(`/api/recipes/${recipes.value}/file`, recipes.value + ".recipe.safetensors").then(() => "")));
  const chosen = h("input", { type: "file", accept: ".safetensors", class: "hidden", tabindex: -1, "aria-label": "Recipe file" });
  chosen.addEventListener("change", attempt(async () => {
    const [one] = chosen.files, id = one.name.toLowerCase().replace(/\.recipe\.safetensors$|\.safetensors$/, "").replace(/[^a-z0-9._-]+/g, "-").replace(/^[._-]+/, "") || "recipe";
    const made = await post("/api/recipe-files", { id: id.slice(0, 64), file: await base64(one) });
    chosen.value = "";
    await refresh(made.id);
    add(made.id, { recipe: made.id, strength: 1 });
    return `${made.id} is on this server and on the panel.`;
  }));
  const link = button("Copy a link", attempt(async () => {
    const address = `${location.origin}${location.pathname}#state=${await pack()}`;
    const copied = await (navigator.clipboard?.writeText(address) ?? Promise.reject()).then(() => true, () => false);
    show(shown, field("The link", h("input", { type: "text", readonly: true, value: address, onfocus: event => event.target.select() })));
    const recipe = state.parts.some(one => one.recipe) ? " Saved recipes stay on this server: send their files too." : "";
    const long = address.length > LONG ? ` It is long (${address.length.toLocaleString("en")} characters), because of the texts of the contrast; some programs cut that.` : "";
    return `${copied ? "Copied." : "Copy it from the field."} It holds the panel, prompt and settings, after the #, where no server sees them; the same seed writes the same texts.${recipe}${long}`;
  }));
  const shown = h("div");
  $("keep").append(h("div", { class: "row" }, link), shown, save,
    h("div", { class: "row" }, field("Recipes of this server", recipes), load, file, button("Open a recipe file", () => chosen.click()), chosen), said);
  list(start.recipes);
}

async function base64(file) {
  const content = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (const one of content) text += String.fromCharCode(one);
  return btoa(text);
}
