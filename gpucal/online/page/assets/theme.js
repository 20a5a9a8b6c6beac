"use strict";
// Runs before the page is drawn, so that it is never bright for a moment at night.
(() => {
  try {
    const chosen = localStorage.getItem("gpucal-theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch (_) {
    // A browser that keeps nothing follows the system.
  }
})();
