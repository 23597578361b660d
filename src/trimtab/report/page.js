"use strict";
const set = (button, on, words) => {
  button.setAttribute("aria-pressed", String(on));
  button.textContent = (on ? "Hide " : "Show ") + words;
};
const flip = (card, on) => {
  card.classList.toggle("show", on);
  set(card.querySelector(".toggle"), on, "firing");
};
for (const button of document.querySelectorAll(".toggle")) {
  const card = button.closest("article");
  button.addEventListener("click", () => flip(card, !card.classList.contains("show")));
}
const all = document.querySelector(".all");
all?.addEventListener("click", () => {
  const on = all.getAttribute("aria-pressed") !== "true";
  set(all, on, "where the features fire");
  for (const card of document.querySelectorAll("article")) flip(card, on);
});
