// How heavy the pages are and how soon they can be read: loads each page afresh, three times on a plain
// screen and once on a sharp one, and prints one JSON array. For each page: the kB (decoded) at both
// densities; in ms, as the best of three, the first text, the first formula and all formulas; and "work", how
// long the page's thread computed until the first formula. Another program slows that down, too; so the front
// page, which has no formula, is loaded beside each, and "front" is what its thread computed until it stood.
//   node speed.mjs BASE_URL PAGE...
import { launch, open } from "./browser.mjs";

const [base, ...pages] = process.argv.slice(2);

// Marks the first frame in which the article shows a formula or, if it has none, is complete.
function watch() {
  const shown = () =>
    document.querySelector("article .math")
      ? document.querySelector("article mjx-container")?.getClientRects().length
      : document.readyState === "complete";
  const look = () => (shown() ? performance.mark("readable") : requestAnimationFrame(look));
  requestAnimationFrame(look);
}

async function measured() {
  while (!performance.getEntriesByName("readable").length) await new Promise(requestAnimationFrame);
  return {
    kB: performance.getEntries().reduce((sum, entry) => sum + (entry.decodedBodySize ?? 0), 0) / 1000,
    text: performance.getEntriesByName("first-contentful-paint")[0].startTime,
    first: performance.getEntriesByName("readable")[0].startTime,
    all: performance.now(),
  };
}

async function load(browser, url, deviceScaleFactor) {
  const context = await browser.newContext({ deviceScaleFactor, viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  await page.addInitScript(watch);
  await browser.startTracing(page, { categories: ["blink.user_timing"] });
  await open(page, url);
  const result = await page.evaluate(measured);
  const { traceEvents } = JSON.parse(await browser.stopTracing());
  await context.close();
  return { ...result, work: traceEvents.find((event) => event.name === "readable").tts / 1000 };
}

const browser = await launch();
await load(browser, new URL(pages[0], base).href, 1); // the browser's own first time
const results = [];
for (const name of pages) {
  const url = new URL(name, base).href;
  const loads = [];
  for (let i = 0; i < 3; i++) loads.push(await load(browser, url, 1));
  const sharp = await load(browser, url, 2);
  const front = await load(browser, new URL("index.html", base).href, 1);
  const best = Object.keys(loads[0]).map((what) => [what, Math.round(Math.min(...loads.map((one) => one[what])))]);
  const beside = { kB2x: Math.round(sharp.kB), front: Math.round(front.work) };
  results.push({ page: name, ...Object.fromEntries(best), ...beside });
}
await browser.close();
console.log(JSON.stringify(results));
