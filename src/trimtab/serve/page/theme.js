"use strict";
// Before the first paint: the look that was chosen here before.
(() => {
  let chosen = "";
  try {
    chosen = localStorage.getItem("trimtab.look") || "";
  } catch { /* storage is off: as the system */ }
  if (chosen) document.documentElement.dataset.look = chosen;
})();
