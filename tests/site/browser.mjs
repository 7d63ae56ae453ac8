// One Chromium for the browser tests and the screenshots: no sandbox (it runs as root in
// containers), nothing of its own on the network, and every host but the site's unreachable.
import { chromium } from "playwright-core";

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
      "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ],
  });

// Resolves when MathJax has typeset the page, its fonts are there, and nothing moves any more.
export async function open(page, url) {
  page.context().setDefaultTimeout(120000); // four times Playwright's own, for a busy machine
  await page.goto(url, { waitUntil: "load" });
  await page.evaluate(() => window.MathJax?.startup?.promise);
  await page.evaluate(() => document.fonts.ready);
  await settled(page);
}

export const settled = (page) =>
  page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.finished)));
