// Steps through every slide of every deck at 1280 x 720 and prints one JSON array: for each deck
// how many slides it has of which kind, and the problems found. With OUT_PREFIX it takes pictures:
//   node slides.mjs BASE_URL DECK... [-- OUT_PREFIX]
import { launch } from "./browser.mjs";

const [base, ...rest] = process.argv.slice(2);
const [decks, prefix] = rest.includes("--") ? [rest.slice(0, rest.indexOf("--")), rest.at(-1)] : [rest, null];

const typesetting = () => {
  const left = [];
  const walker = document.createTreeWalker(document.querySelector(".slides"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { data, parentElement } = walker.currentNode;
    if (/[$]|\\[a-z]{2}|\]\(|\*\*/.test(data) && !parentElement.closest("pre, code, mjx-container")) left.push(data.trim().slice(0, 80));
  }
  const failed = [...document.querySelectorAll("mjx-merror, [data-mjx-error]")];
  return [...left, ...failed.map((e) => e.dataset.mjxError ?? e.textContent)];
};

// What is shown must lie on the slide, whole.
const present = () => {
  const slide = Reveal.getCurrentSlide(), { h, v } = Reveal.getIndices(), problems = [];
  const { left, top, right, bottom } = slide.getBoundingClientRect();
  for (const element of slide.querySelectorAll("h1, h2, h3, h4, h5, p, li, pre, td, img, input, figcaption, mjx-container, mjx-mtable")) {
    if (element.closest("aside, mjx-assistive-mml, .visually-hidden") || !element.offsetParent) continue;
    const box = element.getBoundingClientRect();
    if (box.left < left - 1 || box.top < top - 1 || box.right > right + 1 || box.bottom > bottom + 1)
      problems.push(`${element.localName} reaches ${[box.left - left, box.top - top, box.right - left, box.bottom - top].map(Math.round)}`);
    if (element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display === "block" && element.clientWidth)
      problems.push(`${element.localName} hides ${element.scrollWidth - element.clientWidth} px`);
  }
  const images = [...slide.querySelectorAll("img")].filter((image) => !image.naturalWidth);
  const text = slide.innerText.trim();
  if (!text) problems.push("is empty");
  return { name: `${h}.${v}`, kind: slide.dataset.kind, size: Number(slide.dataset.size ?? 100), problems, images: images.length, last: Reveal.isLastSlide() };
};

const slider = async (page) => {
  const state = () => page.evaluate(() => {
    const figure = Reveal.getCurrentSlide().querySelector(".ntk-slider");
    return [[...figure.querySelectorAll("img")].findIndex((i) => !i.hidden), figure.querySelector("output").textContent].join();
  });
  const before = await state(), place = await page.evaluate(() => JSON.stringify(Reveal.getIndices()));
  await page.locator("section.present section.present .ntk-slider input").focus();
  await page.keyboard.press("ArrowRight");
  const after = await state();
  await page.keyboard.press("Home");
  await page.evaluate(() => document.activeElement.blur());
  const moved = place !== (await page.evaluate(() => JSON.stringify(Reveal.getIndices())));
  return before === after || moved ? ["the slider does not work"] : [];
};

async function visit(browser, name) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 720 } });
  const requests = [], errors = [], overflow = [], kinds = {}, sizes = {};
  page.on("request", (r) => !/^(data|blob):/.test(r.url()) && !r.url().startsWith(base) && requests.push(r.url()));
  page.on("requestfailed", (r) => errors.push(`${r.url()} failed`));
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  await page.goto(new URL(name, base).href, { waitUntil: "load" });
  await page.waitForFunction(() => window.Reveal?.isReady?.());
  const formulas = await page.evaluate(typesetting), counts = { slides: 0, sliders: 0 };
  counts.formulas = await page.locator("mjx-container").count();
  counts.notes = await page.locator("aside.notes").count();
  for (let last = false; !last; ) {
    const slide = await page.evaluate(present);
    last = slide.last;
    counts.slides += 1;
    kinds[slide.kind] = (kinds[slide.kind] ?? 0) + 1;
    if (slide.size < 100) sizes[slide.name] = slide.size;
    overflow.push(...slide.problems.map((problem) => `${slide.name}: ${problem}`));
    if (slide.images) errors.push(`${slide.name}: ${slide.images} pictures missing`);
    if (await page.locator("section.present section.present .ntk-slider").count()) {
      counts.sliders += 1;
      errors.push(...(await slider(page)).map((problem) => `${slide.name}: ${problem}`));
    }
    if (prefix) await page.screenshot({ path: `${prefix}-${name.slice(0, 2)}-${String(counts.slides).padStart(3, "0")}.png` });
    if (!last) await page.keyboard.press("Space");
  }
  await page.close();
  return { deck: name, counts, kinds, sizes, problems: { requests, errors, formulas, overflow } };
}

const browser = await launch();
const visits = [];
for (const name of decks) visits.push(await visit(browser, name));
await browser.close();
console.log(JSON.stringify(visits));
