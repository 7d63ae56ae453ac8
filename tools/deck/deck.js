// Formulas first, then every slide to its size, then reveal.js: what is measured is what is shown.
const SMALLEST = 60; // per cent of the usual size

function overflows(slide) {
  const wide = (element) => element.scrollWidth > element.clientWidth + 1;
  return slide.scrollHeight > slide.clientHeight + 1 || [slide, ...slide.querySelectorAll("p, li, td, pre")].some(wide);
}

function fit(slide) {
  let size = 100;
  while (overflows(slide) && size > SMALLEST) slide.style.fontSize = `${(size -= 5)}%`;
  if (size < 100) slide.dataset.size = size;
}

// The speaker's window has neither MathJax's style nor its fonts: there browsers draw MathML themselves.
function notes() {
  for (const formula of document.querySelectorAll("aside.notes mjx-container"))
    formula.replaceWith(formula.querySelector("math"));
}

// With the mouse a slider gives the arrow keys back to the slides; by keyboard it keeps them.
function sliders() {
  for (const input of document.querySelectorAll(".ntk-slider input"))
    input.addEventListener("pointerup", () => input.blur());
}

async function start() {
  await MathJax.startup.promise;
  await document.fonts.ready;
  notes();
  document.querySelectorAll(".slides > section > section").forEach(fit);
  document.querySelector(".reveal").classList.remove("measuring");
  sliders();
  await Reveal.initialize({
    width: 1160, height: 654, margin: 0.09, center: false, hash: true,
    transition: "none", slideNumber: "c/t", plugins: [RevealNotes],
  });
}

MathJax.tex.inlineMath = [["$", "$"]];
document.head.append(Object.assign(document.createElement("script"), { src: "_static/mathjax/startup.js", onload: start }));
