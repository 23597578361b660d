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
  link.hidden = !(number >= 0 && number < COUNT);
  link.href = "#" + number;
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
  const [name, inside] = found || ["", ""];
  document.title = "Feature " + number + (name ? ": " + name : "");
  lead("before", number - 1);
  lead("after", number + 1);
  if (found) {
    place.innerHTML = inside;
  } else {
    place.textContent = "There is no feature " + location.hash.slice(1) + ": they are numbered from 0 to " + (COUNT - 1) + ".";
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
