// Opens every page at two widths and in two colour schemes, works it by keyboard, and prints
// one JSON array: for each visit the page, what it holds, and the problems found by kind.
//   node pages.mjs BASE_URL PAGE...
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { launch, open, settled } from "./browser.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const [base, ...pages] = process.argv.slice(2);

async function sliders(page) {
  const problems = [];
  for (const slider of await page.locator(".ntk-slider").all()) {
    const state = () => slider.evaluate((s) => [
      [...s.querySelectorAll("img")].filter((i) => i.offsetParent !== null).map((i) => i.alt).join(" and "),
      s.querySelector("output").textContent,
    ]);
    const before = await state();
    await slider.locator("input").focus();
    await page.keyboard.press("ArrowRight");
    const after = await state();
    if (before[0] === after[0] || before[1] === after[1]) problems.push(`stays at ${before}`);
    await page.keyboard.press("Home");
    if (String(await state()) !== String(before)) problems.push(`does not go back to ${before}`);
  }
  return problems;
}

async function solutions(page) {
  const problems = [];
  for (const solution of await page.locator("details.ntk-solution").all()) {
    const isOpen = () => solution.evaluate((d) => d.open);
    const title = await solution.locator("summary").first().innerText();
    if (await isOpen()) problems.push(`${title} is open from the start`);
    await solution.locator("summary").first().focus();
    await page.keyboard.press("Enter");
    if (!(await isOpen())) problems.push(`${title} does not open`);
  }
  return problems;
}

const inspect = () => ({
  counts: {
    math: document.querySelectorAll(".math").length,
    figures: document.querySelectorAll("article figure").length,
    sliders: document.querySelectorAll(".ntk-slider").length,
    solutions: document.querySelectorAll("details.ntk-solution").length,
    claims: document.querySelectorAll(".ntk-claims li").length,
    bytes: performance.getEntries().reduce((sum, entry) => sum + (entry.decodedBodySize ?? 0), 0),
  },
  formulas: [
    ...[...document.querySelectorAll("mjx-merror, [data-mjx-error]")].map((e) => e.dataset.mjxError ?? e.textContent),
    ...[...document.querySelectorAll(".math")].filter((e) => !e.querySelector("mjx-container")).map((e) => e.textContent),
  ],
  scroll: document.documentElement.scrollWidth > document.documentElement.clientWidth
    ? [`${document.documentElement.scrollWidth} px of content`] : [],
  images: [...document.querySelectorAll("img")].filter((i) => i.src && i.complete && !i.naturalWidth).map((i) => i.src.slice(0, 80)),
});

// The glyphs that MathJax draws are thousands of elements, and hidden from screen readers.
const audit = () => window.axe.run({ exclude: ["mjx-math"] }, { resultTypes: ["violations"], preload: false });

async function visit(browser, name, width) {
  const page = await browser.newPage({ colorScheme: "light", viewport: { width, height: 900 } });
  const requests = [], errors = [];
  page.on("request", (request) => {
    if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(base)) requests.push(request.url());
  });
  page.on("response", (response) => response.status() >= 400 && errors.push(`${response.status()} ${response.url()}`));
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  await open(page, new URL(name, base).href);
  const keyboard = { sliders: await sliders(page), solutions: await solutions(page) };
  await page.evaluate(axe);
  const found = [];
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.waitForFunction((scheme) => document.documentElement.dataset.theme === scheme, colorScheme);
    await settled(page);
    const { counts, ...problems } = await page.evaluate(inspect);
    const { violations } = await page.evaluate(audit);
    const nodes = (violation) => violation.nodes.slice(0, 3).map((node) => `${node.target} ${node.failureSummary}`);
    const accessible = violations.map((violation) => `${violation.id}: ${violation.help}: ${nodes(violation).join("; ")}`);
    found.push({ page: name, width, colorScheme, counts, problems: { requests, errors, ...keyboard, ...problems, axe: accessible } });
  }
  await page.close();
  return found;
}

const browser = await launch();
const visits = [];
for (const name of pages)
  visits.push(...(await Promise.all([1280, 390].map((width) => visit(browser, name, width)))).flat());
await browser.close();
console.log(JSON.stringify(visits));
