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
