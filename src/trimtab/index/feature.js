"use strict";
// The page of the feature that the address names after #. Data files call shard(number, text).
const place = document.getElementById("feature");
const loaded = new Map(), arrived = new Map();

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function shard(number, text) {
  arrived.get(number)(unpack(text));
}

function load(number) {
  if (!loaded.has(number)) {
    loaded.set(number, new Promise((done, fail) => {
      arrived.set(number, done);
      const script = document.createElement("script");
      script.src = "data/" + number + ".js";
      script.onerror = () => fail(new Error("no data"));
      document.head.append(script);
    }));
  }
  return loaded.get(number);
}

function lead(name, number) {
  const link = document.getElementById(name);
  link.hidden = number === null;
  if (number !== null) link.href = "#" + number;
}

async function show() {
  const number = Number(location.hash.slice(1) || 0);
  let found;
  try {
    found = (await load(Math.floor(number / TOGETHER)))[number];
  } catch {
    found = undefined;
  }
  if (number !== Number(location.hash.slice(1) || 0)) return;
  const [name, before, after, inside] = found || ["", null, null, ""];
  document.title = "Feature " + number + (name ? ": " + name : "");
  lead("before", before);
  lead("after", after);
  if (found) {
    place.innerHTML = inside;
  } else {
    place.textContent = "Feature " + location.hash.slice(1) + " has no page: it never fired, or there is none.";
  }
  place.dataset.shown = number;
  scrollTo(0, 0);
}

addEventListener("hashchange", show);
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const link = { p: "before", n: "after" }[event.key];
  if (link && !document.getElementById(link).hidden) location.hash = document.getElementById(link).hash;
  if (event.key === "/") {
    event.preventDefault();
    location.href = "index.html";
  }
});
show();
