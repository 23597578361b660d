// Text whose tokens are coloured by how strongly a feature fires, with the number at hover and by arrow keys.
import { $, h, percent } from "./dom.js";

/** Tokens as nodes; `shares` are 0 to 1 (or more), by token. */
export function marked(tokens, shares) {
  return tokens.map((token, i) => {
    const share = shares[i];
    if (!(share > 0)) return token;
    const lead = token.length - token.trimStart().length;
    return [token.slice(0, lead), h("mark", { "--s": Math.min(1, share).toFixed(3), "data-share": share }, token.slice(lead))];
  }).flat();
}

/** A short example in one line, around its strongest token. */
export function example({ tokens, values }, top) {
  return h("p", { class: "example" }, marked(tokens, values.map(value => value / top)));
}

/** Let arrow keys walk through the marks of `element`, and read them out. */
export function readable(element, label) {
  element.tabIndex = 0;
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", label);
  let at = -1;
  element.addEventListener("keydown", event => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const marks = [...element.querySelectorAll("mark")];
    if (!by || !marks.length) return;
    event.preventDefault();
    marks[at]?.classList.remove("at");
    at = at < 0 && by < 0 ? marks.length - 1 : (at + by + marks.length) % marks.length;
    marks[at].classList.add("at");
    tell(marks[at]);
    $("said").textContent = told(marks[at]);
  });
  element.addEventListener("blur", () => {
    element.querySelector("mark.at")?.classList.remove("at");
    at = -1;
    hide();
  });
}

const told = mark => `“${mark.textContent}”: ${percent(Number(mark.dataset.share))} of the largest on record`;

function tell(mark) {
  const tip = $("tip"), place = mark.getBoundingClientRect();
  tip.textContent = told(mark);
  tip.hidden = false;
  const left = Math.max(6, Math.min(place.left, innerWidth - tip.offsetWidth - 6));
  const below = place.bottom + tip.offsetHeight + 10 < innerHeight;
  tip.style.left = left + "px";
  tip.style.top = (below ? place.bottom + 6 : place.top - tip.offsetHeight - 6) + "px";
}

function hide() {
  $("tip").hidden = true;
}

document.addEventListener("pointerover", event => {
  const mark = event.target.closest?.("mark[data-share]");
  if (mark) tell(mark);
  else if (!document.activeElement?.querySelector?.("mark.at")) hide();
});
addEventListener("scroll", hide, { passive: true });
