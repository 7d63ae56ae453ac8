// Types words into the ledger's search and prints one JSON array: for each the claims and the tables in sight, and the count shown.
//   node ledger.mjs BASE_URL WORDS...
import { launch, open } from "./browser.mjs";

const [base, ...searches] = process.argv.slice(2);
const shown = () => {
  const visible = (selector) => [...document.querySelectorAll(selector)].filter((element) => element.offsetParent !== null);
  return {
    claims: visible(".ntk-ledger tbody tr").map((row) => row.textContent),
    tables: visible(".ntk-ledger").length,
    count: document.querySelector(".ntk-ledger-search output").textContent,
  };
};

const browser = await launch();
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
await open(page, new URL("ledger.html", base).href);
const results = [];
for (const words of searches) {
  await page.getByLabel("Show the claims with").fill(words);
  results.push(await page.evaluate(shown));
}
await browser.close();
console.log(JSON.stringify(results));
