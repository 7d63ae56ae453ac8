// Prints an HTML page of the book: node pdf.mjs URL OUT.pdf
// Wide formulas and tables are made to fit, and what still does not fit is an error. The page is
// printed twice: page numbers in the table of contents are known only after the first time.
import { writeFileSync } from "node:fs";
import { launch, open } from "../tests/site/browser.mjs";

const [url, out] = process.argv.slice(2);

// To a screen reader a formula is one picture, described by its TeX.
function describe() {
  for (const { typesetRoot, math } of window.MathJax.startup.document.math) {
    typesetRoot.setAttribute("role", "img");
    typesetRoot.setAttribute("aria-label", math);
  }
}

function fit() {
  for (const element of document.querySelectorAll("mjx-container[display], table")) {
    const room = (element.matches("table") ? element.parentElement : element).clientWidth;
    const ratio = room / element.scrollWidth;
    if (ratio < 1) element.style.fontSize = `${Math.floor(98 * ratio)}%`;
  }
}

const problems = () => {
  const right = document.body.getBoundingClientRect().right + 1;
  const text = (element) => (element.textContent.trim() || element.src || "").slice(0, 60);
  const named = (kind, elements) => elements.map((element) => `${kind}: ${element.tagName} ${text(element)}`);
  const all = [...document.querySelectorAll("body *")];
  return [
    ...named("formula", [...document.querySelectorAll("mjx-merror, .math:not(:has(mjx-container))")]),
    ...named("no picture", [...document.images].filter((image) => !image.naturalWidth)),
    ...named("no target", [...document.querySelectorAll('a[href^="#"]')].filter((a) => !document.getElementById(decodeURIComponent(a.hash.slice(1))))),
    ...named("too wide", all.filter((element) => element.getBoundingClientRect().right > right)),
    ...named("too small", all.filter((element) => element.style.fontSize.endsWith("%") && parseInt(element.style.fontSize) < 60)),
  ];
};

// Chromium writes its PDF objects uncompressed: pages in order, and where each link leads.
function destinations(pdf) {
  const text = pdf.toString("latin1");
  const order = [...text.matchAll(/^(\d+) 0 obj\s+<<\/Type \/Page\s/gm)].map((match) => match[1]);
  const found = {};
  for (const [, name, page] of text.matchAll(/\/(\S+) \[(\d+) 0 R \/XYZ /g))
    found[name.replace(/#([0-9A-F]{2})/gi, (_, code) => String.fromCharCode(parseInt(code, 16)))] = order.indexOf(page) + 1;
  return { found, pages: order.length };
}

const browser = await launch();
const page = await browser.newPage({ viewport: { width: 800, height: 1100 } });
await page.emulateMedia({ media: "print" });
await open(page, url);
await page.evaluate(describe);
await page.evaluate(fit);
const wrong = await page.evaluate(problems);
const print = (options) => page.pdf({ preferCSSPageSize: true, printBackground: true, ...options });
const { found } = destinations(await print({}));
await page.evaluate((pages) => {
  for (const link of document.querySelectorAll("a:has(> .on-page)"))
    link.querySelector(".on-page").textContent = pages[decodeURIComponent(link.hash.slice(1))] ?? "?";
}, found);
const pdf = await print({ outline: true, tagged: true });
await browser.close();
const printed = destinations(pdf);
const moved = Object.keys(found).filter((name) => printed.found[name] !== found[name]);
wrong.push(...moved.map((name) => `moved: ${name} is on page ${printed.found[name]}, not ${found[name]}`));
writeFileSync(out, pdf);
console.log(`${out}: ${printed.pages} pages, ${(pdf.length / 1e6).toFixed(1)} MB`);
for (const problem of wrong) console.error(problem);
process.exit(wrong.length ? 1 : 0);
