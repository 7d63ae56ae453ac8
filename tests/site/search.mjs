// Searches as a reader does, Ctrl+K on a page, the words, Enter, and prints one JSON array: for each search
// the pages found, the errors, and what axe has to say of the results.
//   node search.mjs BASE_URL PAGE WORDS...
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { launch, open } from "./browser.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const [base, from, ...searches] = process.argv.slice(2);

const found = () => [...document.querySelectorAll("ul.search li > a")].map((link) => new URL(link.href).pathname.slice(1));
const finished = () => document.querySelector(".search-summary")?.textContent.match(/finished|did not match/i);
// A name of the API has its description, everything else words from the page.
const described = () => [...document.querySelectorAll("ul.search li")].every((result) => result.querySelector("p.context, span"));

const browser = await launch();
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
let errors = [];
page.on("response", (response) => response.status() >= 400 && errors.push(`${response.status()} ${response.url()}`));
page.on("pageerror", (error) => errors.push(error.message));
page.on("console", (message) => message.type() === "error" && errors.push(message.text()));

const results = [];
for (const words of searches) {
  errors = [];
  await open(page, new URL(from, base).href);
  await page.keyboard.press("Control+k");
  await page.locator("dialog[open] input[type=search]").waitFor();
  await page.keyboard.type(words);
  await page.keyboard.press("Enter");
  await page.waitForURL(/search\.html\?q=/);
  await page.waitForFunction(finished);
  const pages = await page.evaluate(found);
  await page.waitForFunction(described).catch(() => errors.push("an excerpt is missing"));
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run({ resultTypes: ["violations"], preload: false }));
  results.push({ pages, errors, axe: violations.map(({ help, nodes }) => `${help}: ${nodes.map((node) => node.target)}`) });
}
await browser.close();
console.log(JSON.stringify(results));
