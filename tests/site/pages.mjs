// Opens every page at two widths and in two colour schemes, works it by keyboard, mouse and touch, and
// prints one JSON array: for each visit the page, what it holds, and the problems found by kind.
//   node pages.mjs BASE_URL PAGE...
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { launch, open, settled } from "./browser.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const [base, ...pages] = process.argv.slice(2);

// Tab and Enter lead past the navigation, into the content.
async function skip(page) {
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  const reached = await page.evaluate(() => document.activeElement.closest("main") !== null);
  await page.evaluate(() => document.activeElement.blur());
  return reached ? [] : ["the first Tab and Enter do not lead to the content"];
}

const keyboard = {
  forth: async (page, input) => { await input.focus(); await page.keyboard.press("ArrowRight"); },
  back: (page) => page.keyboard.press("Home"),
};
const ends = async (input) => {
  await input.scrollIntoViewIfNeeded();
  const { x, y, width, height } = await input.boundingBox();
  return { left: x + 9, right: x + width - 9, y: y + height / 2 };
};
const mouse = {
  drag: async (page, y, from, to) => {
    await page.mouse.move(from, y);
    await page.mouse.down();
    await page.mouse.move(to, y, { steps: 4 });
    await page.mouse.up();
  },
  forth: async (page, input) => { const { left, right, y } = await ends(input); await mouse.drag(page, y, left, right); },
  back: async (page, input) => { const { left, right, y } = await ends(input); await mouse.drag(page, y, right, left); },
};
const touch = {
  forth: async (page, input) => {
    const { left, right, y } = await ends(input);
    const session = await page.context().newCDPSession(page);
    const send = (type, ...touchPoints) => session.send("Input.dispatchTouchEvent", { type, touchPoints });
    await send("touchStart", { x: left, y });
    for (const part of [0.25, 0.5, 0.75, 1]) await send("touchMove", { x: left + part * (right - left), y });
    await send("touchEnd");
    await session.detach();
  },
  back: async (page, input) => { const { left, y } = await ends(input); await page.touchscreen.tap(left, y); },
};

async function sliders(page, ways) {
  const problems = [];
  for (const slider of await page.locator(".ntk-slider").all()) {
    const input = slider.locator("input");
    // The frame in sight, once it has been loaded, and the value.
    const state = () => slider.evaluate(async (s) => {
      const shown = [...s.querySelectorAll("img")].filter((i) => i.offsetParent !== null);
      await Promise.all(shown.map((i) => i.decode()));
      return [shown.map((i) => i.alt).join(" and "), s.querySelector("output").textContent];
    });
    const before = await state();
    for (const [name, way] of Object.entries(ways)) {
      await way.forth(page, input);
      const after = await state();
      if (before[0] === after[0] || before[1] === after[1]) problems.push(`by ${name}, stays at ${before}`);
      await way.back(page, input);
      if (String(await state()) !== String(before)) problems.push(`by ${name}, does not go back to ${before}`);
    }
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
    for (const [key, open] of [["Enter", true], ["Space", false], ["Enter", true]]) {
      await page.keyboard.press(key);
      if ((await isOpen()) !== open) problems.push(`${title}: ${key} does not ${open ? "open" : "close"} it`);
    }
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
  const hasTouch = width < 600;
  const page = await browser.newPage({ colorScheme: "light", viewport: { width, height: 900 }, hasTouch });
  const requests = [], errors = [];
  page.on("request", (request) => {
    if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(base)) requests.push(request.url());
  });
  page.on("response", (response) => response.status() >= 400 && errors.push(`${response.status()} ${response.url()}`));
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  await open(page, new URL(name, base).href);
  const worked = {
    skip: await skip(page),
    sliders: await sliders(page, hasTouch ? { touch } : { keyboard, mouse }),
    solutions: await solutions(page),
  };
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
    found.push({ page: name, width, colorScheme, counts, problems: { requests, errors, ...worked, ...problems, axe: accessible } });
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
