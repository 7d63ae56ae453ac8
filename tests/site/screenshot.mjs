// Pictures of whole pages: node screenshot.mjs BASE_URL OUT_PREFIX PAGE...
// writes OUT_PREFIX-<page>-<width>-<scheme>.png for 1280 and 390 pixels, light and dark.
import { launch, open } from "./browser.mjs";

const [base, prefix, ...pages] = process.argv.slice(2);
if (!pages.length) {
  console.error("usage: node screenshot.mjs BASE_URL OUT_PREFIX PAGE...");
  process.exit(2);
}
const browser = await launch();
for (const colorScheme of ["light", "dark"]) {
  for (const [width, height] of [[1280, 900], [390, 844]]) {
    const page = await browser.newPage({ colorScheme, viewport: { width, height } });
    for (const name of pages) {
      await open(page, new URL(name, base.replace(/\/?$/, "/")).href);
      const path = `${prefix}-${name.replace(/\.html$/, "")}-${width}-${colorScheme}.png`;
      await page.screenshot({ path, fullPage: true, animations: "disabled" });
      console.log(path);
    }
    await page.close();
  }
}
await browser.close();
