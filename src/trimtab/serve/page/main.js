// Begins the page, and shows the view that the address names.
import { read } from "./api.js";
import { addFeature } from "./cards.js";
import { $, button } from "./dom.js";
import { setUp as setUpFind } from "./find.js";
import { setUp as setUpSamples } from "./samples.js";
import { setUp as setUpSliders } from "./sliders.js";
import { kept, restore, state, unpack } from "./state.js";
import * as browser from "./browser.js";
import * as dose from "./dose.js";
import * as feature from "./feature.js";
import * as keep from "./keep.js";
import * as map from "./map.js";
import * as verdict from "./verdict.js";

const TITLE = document.title;
const VIEWS = ["steer", "features", "feature", "map"];
let start;

function look() {
  const choice = $("look");
  choice.value = document.documentElement.dataset.look ?? "";
  choice.addEventListener("change", () => {
    if (choice.value) document.documentElement.dataset.look = choice.value;
    else delete document.documentElement.dataset.look;
    try {
      localStorage.setItem("trimtab.look", choice.value);
    } catch { /* storage is off: it holds until the page is closed */ }
    dispatchEvent(new Event("look"));
  });
}

/** On narrow screens a bar at the bottom leads to the parts, which lie far apart there. */
function jumps() {
  const parts = { find: "Find", panel: "Steer", write: "Write", dose: "Dose", verify: "Verify", keep: "Keep" };
  $("jump").append(...Object.entries(parts).map(([id, text]) => button(text, () => $(id).scrollIntoView())));
}

const trouble = text => Object.assign($("trouble"), { textContent: text, hidden: !text });

function route(event) {
  const [name, rest] = location.hash.slice(1).split("/");
  if (name === "main") return;
  if (name === "state") location.reload(); // another link in the same tab
  const view = VIEWS.includes(name) ? name : "steer";
  for (const one of VIEWS) $("view-" + one).hidden = one !== view;
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash.slice(1) === (view === "feature" ? "features" : view);
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.querySelector("h1").hidden = $("jump").hidden = view !== "steer";
  document.title = TITLE; // other views change it
  if (view === "features") browser.open(start);
  if (view === "feature") feature.open(start, Number(rest));
  if (view === "map") map.open(start);
  if (event) {
    scrollTo({ top: 0, behavior: "instant" });
    $("main").focus({ preventScroll: true });
  }
}

/** The state of a link, else of this tab; null at the first visit. */
async function before() {
  const [name, packed] = location.hash.slice(1).split("=");
  if (name !== "state") return kept();
  try {
    const found = await unpack(packed);
    history.replaceState(null, "", "#steer");
    return found;
  } catch {
    trouble("The link is damaged: what it should restore cannot be read. Copy it again, all of it.");
    return kept();
  }
}

async function begin() {
  look();
  jumps();
  try {
    const [found, saved] = await Promise.all([read("/api/start"), before()]);
    start = found;
    if (saved) restore(saved);
    else if (start.example.cards.length) addFeature(start.example.cards[0]);
  } catch (error) {
    return trouble(error.message);
  }
  $("served").textContent = [start.model.name, start.sae && `${start.sae.features.toLocaleString("en")} features at ${start.sae.site}`].filter(Boolean).join(", ");
  for (const part of [setUpFind, setUpSliders, setUpSamples, dose.setUp, verdict.setUp, keep.setUp]) part(start);
  addEventListener("hashchange", route);
  route();
  document.body.dataset.ready = "";
}

begin();
