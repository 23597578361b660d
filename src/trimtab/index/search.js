"use strict";
// FEATURES: [number, label, other words, density, score of the label] of every feature.
const [box, list, say, order, more] = ["words", "found", "say", "order", "more"].map(id => document.getElementById(id));
const TEXTS = FEATURES.map(([number, label, other]) => (number + " " + label + " " + other).toLowerCase());
const LABELS = FEATURES.map(([, label]) => label.toLowerCase());
const WORDS = LABELS.map(label => label.split(/[\s,;]+/));
const STEP = 100;
let hits = [], shown = 0;

const ORDERS = {
  match: (a, b) => b.worth - a.worth || a.place - b.place,
  number: (a, b) => a.place - b.place,
  density: (a, b) => FEATURES[b.place][3] - FEATURES[a.place][3] || a.place - b.place,
  score: (a, b) => (FEATURES[b.place][4] || 0) - (FEATURES[a.place][4] || 0) || a.place - b.place,
};

// The feature's own number, then words of the label, whole ones and early ones first.
function worth(place, word) {
  if (String(FEATURES[place][0]) === word) return 9;
  const named = WORDS[place].indexOf(word);
  if (named >= 0) return 2 + 1 / (1 + named);
  return LABELS[place].includes(word) ? 1 : 0;
}

function find() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  hits = [];
  for (let place = 0; place < TEXTS.length; place++) {
    if (!words.every(word => TEXTS[place].includes(word))) continue;
    hits.push({ place, worth: words.reduce((sum, word) => sum + worth(place, word), 0) });
  }
  hits.sort(ORDERS[order.value]);
  say.textContent = hits.length.toLocaleString("en") + (hits.length === 1 ? " feature" : " features");
  list.replaceChildren();
  shown = 0;
  extend();
}

function part(name, text, tag = "span") {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text;
  return made;
}

function row({ place }) {
  const [number, label, other, density, score] = FEATURES[place];
  const link = part("", "", "a"), name = part("name", label || "(no label)");
  link.href = "feature.html#" + number;
  name.append(part("", other, "small"));
  const percent = density ? (100 * density).toPrecision(2) + " %" : "never";
  link.append(part("number", number), name, part("share", score ? percent + " · " + score.toFixed(2) : percent));
  link.title = (density ? "fires on " + percent + " of tokens" : "never fired") + (score ? "; detection score of the label " + score : "");
  const item = document.createElement("li");
  item.append(link);
  return item;
}

function extend() {
  list.append(...hits.slice(shown, shown + STEP).map(row));
  shown = Math.min(hits.length, shown + STEP);
  more.hidden = shown >= hits.length;
}

addEventListener("keydown", event => {
  const links = [...list.querySelectorAll("a")], at = links.indexOf(document.activeElement);
  if (event.key === "/" && document.activeElement !== box) {
    event.preventDefault();
    box.focus();
  } else if (event.key === "ArrowDown" && (at >= 0 || document.activeElement === box)) {
    event.preventDefault();
    (links[at + 1] || links[at] || box).focus();
  } else if (event.key === "ArrowUp" && at >= 0) {
    event.preventDefault();
    (links[at - 1] || box).focus();
  }
});
box.addEventListener("input", find);
order.addEventListener("change", find);
more.addEventListener("click", extend);
find();
