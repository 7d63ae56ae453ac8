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
    if (/[$]|\\[a-z]{2}|\]\(|\*\*/.test(data) && !parentElement.closest("pre, code, mjx-container"))
      left.push(data.trim().slice(0, 80));
  }
  const failed = [...document.querySelectorAll("mjx-merror, [data-mjx-error]")];
  return [...left, ...failed.map((e) => e.dataset.mjxError ?? e.textContent)];
};

// What is shown must lie on the slide, whole. Runs in the page: one call steps through the deck.
const walk = () => {
  const content = "h1, h2, h3, h4, h5, p, li, pre, td, img, input, figcaption, mjx-container, mjx-mtable";
  const outside = (slide) => {
    const { left, top, right, bottom } = slide.getBoundingClientRect(), problems = [];
    for (const element of slide.querySelectorAll(content)) {
      if (element.closest("aside, mjx-assistive-mml") || !element.offsetParent) continue;
      const box = element.getBoundingClientRect(), reach = [box.left - left, box.top - top, box.right - left, box.bottom - top];
      if (box.left < left - 1 || box.top < top - 1 || box.right > right + 1 || box.bottom > bottom + 1)
        problems.push(`${element.localName} reaches ${reach.map(Math.round)}`);
      if (/^(p|li|pre|td|figcaption)$/.test(element.localName) && element.scrollWidth > element.clientWidth + 1)
        problems.push(`${element.localName} is ${element.scrollWidth - element.clientWidth} px too wide`);
    }
    return problems;
  };
  for (const slides = []; ; Reveal.next()) {
    const slide = Reveal.getCurrentSlide(), { h, v } = Reveal.getIndices(), problems = outside(slide);
    if (!slide.innerText.trim()) problems.push("is empty");
    if ([...slide.querySelectorAll("img")].some((image) => !image.naturalWidth)) problems.push("misses a picture");
    const slider = slide.querySelector(".ntk-slider") !== null;
    slides.push({ h, v, kind: slide.dataset.kind, size: Number(slide.dataset.size ?? 100), problems, slider });
    if (Reveal.isLastSlide()) return slides;
  }
};

// By keyboard the slider moves, and the slides stay.
async function slider(page, { h, v }) {
  const state = () => page.evaluate(() => {
    const figure = Reveal.getCurrentSlide().querySelector(".ntk-slider"), { h, v } = Reveal.getIndices();
    const frame = [...figure.querySelectorAll("img")].findIndex((image) => !image.hidden);
    return [frame, figure.querySelector("output").textContent, `${h}.${v}`];
  });
  await page.evaluate(([h, v]) => Reveal.slide(h, v), [h, v]);
  const before = await state();
  await page.locator("section.present section.present .ntk-slider input").focus();
  await page.keyboard.press("ArrowRight");
  const after = await state();
  await page.keyboard.press("Home");
  return before[0] === after[0] || before[1] === after[1] || before[2] !== after[2] ? [`${before} and then ${after}`] : [];
}

async function visit(browser, name) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 720 } });
  page.setDefaultTimeout(120000);
  const requests = [], errors = [], sliders = [];
  page.on("request", (r) => !/^(data|blob):/.test(r.url()) && !r.url().startsWith(base) && requests.push(r.url()));
  page.on("requestfailed", (r) => errors.push(`${r.url()} failed`));
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  await page.goto(new URL(name, base).href, { waitUntil: "load" });
  await page.waitForFunction(() => window.Reveal?.isReady?.());
  const formulas = await page.evaluate(typesetting), typeset = await page.locator("mjx-container").count();
  const slides = await page.evaluate(walk);
  for (const slide of slides.filter((each) => each.slider)) sliders.push(...(await slider(page, slide)));
  if (prefix) await pictures(page, slides, `${prefix}-${name.slice(0, 2)}`);
  await page.close();
  const overflow = slides.flatMap(({ h, v, problems }) => problems.map((problem) => `${h}.${v}: ${problem}`));
  return { deck: name, slides, typeset, problems: { requests, errors, formulas, overflow, sliders } };
}

async function pictures(page, slides, start) {
  for (const [i, { h, v }] of slides.entries()) {
    await page.evaluate(([h, v]) => Reveal.slide(h, v), [h, v]);
    await page.screenshot({ path: `${start}-${String(i + 1).padStart(3, "0")}.png` });
  }
}

const browser = await launch();
const visits = [];
for (let i = 0; i < decks.length; i += 2)
  visits.push(...(await Promise.all(decks.slice(i, i + 2).map((name) => visit(browser, name)))));
await browser.close();
console.log(JSON.stringify(visits));
