// Opens pages of an unpacked site as files, searches from the first page, and prints one JSON
// object: the formulas of each page, the titles that search finds, and every problem.
//   node offline.mjs FOLDER WORD PAGE...
import { pathToFileURL } from "node:url";
import { launch, open } from "./browser.mjs";

const [folder, word, ...pages] = process.argv.slice(2);
const base = pathToFileURL(`${folder}/`).href;
const browser = await launch();
const page = await browser.newPage();
const problems = [];
page.on("request", (request) => {
  if (!request.url().startsWith(base) && !/^(data|blob):/.test(request.url())) problems.push(`outside: ${request.url()}`);
});
page.on("requestfailed", (request) => problems.push(`failed: ${request.url()}`));
page.on("pageerror", (error) => problems.push(error.message));
page.on("console", (message) => message.type() === "error" && problems.push(message.text()));

const formulas = {};
for (const name of pages) {
  await open(page, base + name);
  formulas[name] = await page.evaluate(() => ({
    all: document.querySelectorAll(".math").length,
    typeset: document.querySelectorAll(".math:has(mjx-container):not(:has(mjx-merror))").length,
    fonts: [...document.fonts].filter((font) => font.status === "loaded" && /MJX/.test(font.family)).length,
  }));
}
await open(page, `${base}index.html`);
await page.keyboard.press("Control+k");
await page.keyboard.type(word);
await page.keyboard.press("Enter");
await page.locator("#search-results li a").first().waitFor();
const found = await page.locator("#search-results li a").evaluateAll((links) => links.map((link) => link.getAttribute("href")));
const address = page.url();
await page.locator("#search-results li a").first().click();
await page.waitForLoadState("load");
const opened = page.url();
await browser.close();
console.log(JSON.stringify({ formulas, found, address, opened, problems }));
