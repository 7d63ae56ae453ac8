// The formulas in sight are typeset before the rest of the page.
async function inSightFirst() {
  const inSight = [...document.querySelectorAll(".math")].filter((formula) => {
    const { top, bottom } = formula.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  });
  await MathJax.typesetPromise(inSight);
  await new Promise(requestAnimationFrame);
  await MathJax.startup.defaultPageReady();
}
if (window.MathJax) MathJax.startup = { pageReady: inSightFirst };

// A formula wider than its column scrolls; let the keyboard reach it then.
async function reachWideFormulas() {
  await window.MathJax?.startup?.promise;
  for (const formula of document.querySelectorAll('mjx-container[display="true"]')) {
    const wide = formula.scrollWidth > formula.clientWidth;
    formula.toggleAttribute("tabindex", wide);
    if (wide) formula.tabIndex = 0;
  }
}
window.addEventListener("load", reachWideFormulas);
window.addEventListener("resize", reachWideFormulas);

// A slider's frames wait in their files; who reaches for it will want them.
for (const slider of document.querySelectorAll(".ntk-slider"))
  for (const reached of ["pointerenter", "focusin"])
    slider.addEventListener(reached, () => slider.querySelectorAll("img").forEach((frame) => (frame.loading = "eager")));
