// The notebooks as JupyterLab shows them: node lab.mjs LAB_URL OUT_PREFIX NOTEBOOK...
// prints what a reader would stumble over, and writes OUT_PREFIX-<notebook>-<place>.png, a screenful each, from
// the top, the first box, figure, slider and exercise, and the end.
// Give it a server that works on a copy, without a token, and renders every cell: in the settings folder that
// JUPYTERLAB_SETTINGS_DIR names, @jupyterlab/notebook-extension/tracker.jupyterlab-settings is {"windowingMode": "none"}.
import { launch } from "./browser.mjs";

const PLACES = {
  top: ".jp-NotebookPanel .jp-Cell",
  box: ".jp-RenderedMarkdown :is([data-jupyter-id^=thm-], [data-jupyter-id^=prop-], [data-jupyter-id^=def-])",
  figure: ".jp-NotebookPanel figure:not(:has(input))",
  slider: ".jp-NotebookPanel figure:has(input)",
  exercise: ".jp-RenderedMarkdown [data-jupyter-id^=ex-]",
  end: ".jp-NotebookPanel .jp-Cell:last-child",
};

// What the rendered notebook should not hold, each with the words around it.
function audit() {
  const around = (node) => node.textContent.trim().slice(0, 120);
  const texts = [...document.querySelectorAll(".jp-RenderedMarkdown")].map((cell) => {
    const copy = cell.cloneNode(true);
    copy.querySelectorAll("mjx-container, code, pre").forEach((node) => node.remove());
    return copy;
  });
  const found = (pattern) => texts.map((text) => text.textContent.match(pattern)?.[0]).filter(Boolean);
  const anchors = [...document.querySelectorAll("[data-jupyter-id], figure[id]")];
  const targets = new Set(anchors.map((node) => node.dataset.jupyterId ?? node.id));
  const images = [...document.querySelectorAll(".jp-NotebookPanel img")];
  return {
    "raw mathematics": found(/.{0,40}(\$|\\\\?(frac|sigma|Theta|begin|mathbb)).{0,40}/),
    "raw directives": found(/.{0,20}(\{[a-z]+\}`|:::|<!--).{0,60}/),
    "mathematics in error": [...document.querySelectorAll("mjx-merror, .jp-RenderedMarkdown [data-mjx-error]")].map(around),
    "broken images": images.filter((image) => image.complete && !image.naturalWidth).map((image) => image.alt),
    "images without words": images.filter((image) => !image.alt).map((image) => image.src.slice(0, 60)),
    "links to nowhere": [...document.querySelectorAll(".jp-RenderedMarkdown a[href^='#']:not(.jp-InternalAnchorLink)")]
      .filter((link) => !targets.has(decodeURIComponent(link.hash.slice(1))))
      .map((link) => `${link.textContent} -> ${link.hash}`),
    "stray > in a formula": found(/^\s*>.{0,60}/m),
    counts: `${texts.length} texts, ${document.querySelectorAll("mjx-container").length} formulas, ${images.length} images`,
  };
}

const [base, prefix, ...names] = process.argv.slice(2);
if (!names.length) {
  console.error("usage: node lab.mjs LAB_URL OUT_PREFIX NOTEBOOK...");
  process.exit(2);
}
const browser = await launch();
for (const name of names) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.on("pageerror", (error) => console.log(name, "script error:", error.message));
  await page.goto(new URL(`lab/tree/${name}.ipynb?reset`, base.replace(/\/?$/, "/")).href);
  await page.waitForSelector(".jp-NotebookPanel .jp-RenderedMarkdown h1", { timeout: 120000 });
  await page.waitForFunction(() => {
    const cells = document.querySelectorAll(".jp-NotebookPanel .jp-MarkdownCell");
    return cells.length && [...cells].every((cell) => cell.querySelector(".jp-RenderedMarkdown")?.childElementCount);
  }, null, { timeout: 120000 });
  await page.waitForTimeout(3000); // MathJax typesets cell by cell, and says nothing when it is done
  const report = await page.evaluate(audit);
  for (const [what, where] of Object.entries(report)) if (where.length) console.log(name, `${what}:`, where);
  for (const [place, selector] of Object.entries(PLACES)) {
    const target = page.locator(selector).first();
    if (!(await target.count())) continue;
    await target.evaluate((node) => node.scrollIntoView({ block: "start" }));
    await page.waitForTimeout(500);
    await page.screenshot({ path: `${prefix}-${name}-${place}.png` });
  }
  await page.close();
}
await browser.close();
