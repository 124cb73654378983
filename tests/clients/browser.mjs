// A Chromium that pages are opened in, told what to do on stdin and answering on stdout, one JSON
// object a line: {"id":1,"do":"open","url":…} → {"id":1,"value":"p1"} or {"id":1,"error":"…"}.
// tests/support/browser.py is its other half. argv: the path of a Chromium, and
// its further flags. firefox.mjs does the same with Firefox.

import { chromium } from "playwright-core";
import { serve } from "./browser-commands.mjs";

const [executablePath, ...flags] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", ...flags] });
const pages = new Map();

const commands = {
  // `beside`: another page, whose storage the new page shares. `looks`: options of a new context.
  async open({ url, first, beside, looks, within_s: seconds }) {
    const context = beside ? pages.get(beside).page.context() : await browser.newContext(looks ?? {});
    const page = await context.newPage();
    if (first) await page.addInitScript(first);
    const name = `p${pages.size + 1}`;
    const seen = [];
    page.on("pageerror", (error) => seen.push(String(error)));
    pages.set(name, { page, seen });
    page.setDefaultTimeout(1000 * seconds);
    await page.goto(url);
    return name;
  },
  async evaluate({ page, script }) {
    return pages.get(page).page.evaluate(script);
  },
  async type({ page, text }) {
    await pages.get(page).page.locator("#text-input").fill(text);
    await pages.get(page).page.keyboard.press("Enter");
  },
  async fill({ page, selector, text }) {
    await pages.get(page).page.locator(selector).fill(text);
  },
  async click({ page, selector }) {
    await pages.get(page).page.locator(selector).click();
  },
  async press({ page, key }) {
    await pages.get(page).page.keyboard.press(key);
  },
  async select({ page, selector, value }) {
    await pages.get(page).page.locator(selector).selectOption(value);
  },
  async attach({ page, selector, paths }) {
    await pages.get(page).page.locator(selector).setInputFiles(paths);
  },
  async offline({ page, is_offline: isOffline }) {
    await pages.get(page).page.context().setOffline(isOffline);
  },
  async screenshot({ page, path }) {
    await pages.get(page).page.screenshot({ path });
  },
  async reload({ page }) {
    await pages.get(page).page.reload();
  },
  async errors({ page }) {
    return pages.get(page).seen;
  },
  async close({ page }) {
    await pages.get(page).page.close();
  },
};

await serve(browser.version(), commands);
await browser.close();
