// The formulas in sight, and the next ones, are typeset before the rest of the page.
async function inSightFirst() {
  const below = [...document.querySelectorAll(".math")].filter((formula) => formula.getBoundingClientRect().bottom > 0);
  const next = 12;
  await MathJax.typesetPromise(below.filter((formula, i) => i < next || formula.getBoundingClientRect().top < innerHeight));
  // A frame's callback runs before the frame is painted: what must not delay it comes in a task of its own.
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
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

// A link to a claim opens what it is folded into.
function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  target.scrollIntoView();
}
window.addEventListener("load", openTarget);
window.addEventListener("hashchange", openTarget);

// The ledger shows the claims that hold every word asked for.
function searchLedger() {
  const search = document.querySelector(".ntk-ledger-search");
  if (!search) return;
  const rows = [...document.querySelectorAll(".ntk-ledger tbody tr")].map((row) => [row, row.textContent.toLowerCase()]);
  const show = () => {
    const words = search.querySelector("input").value.toLowerCase().split(/\s+/);
    for (const [row, text] of rows) row.hidden = !words.every((word) => text.includes(word));
    for (const table of document.querySelectorAll(".ntk-ledger"))
      table.closest("section").hidden = !table.querySelector("tbody tr:not([hidden])");
    search.querySelector("output").textContent = `${rows.filter(([row]) => !row.hidden).length} of ${rows.length}`;
  };
  search.addEventListener("input", show);
  show();
}
searchLedger();
// A slider's frames wait in their files; who reaches for it will want them.
for (const slider of document.querySelectorAll(".ntk-slider"))
  for (const reached of ["pointerenter", "focusin"])
    slider.addEventListener(reached, () => slider.querySelectorAll("img").forEach((frame) => (frame.loading = "eager")));
