// As browser.mjs, with Firefox over WebDriver BiDi. argv: the path of a Firefox.

import puppeteer from "puppeteer-core";
import { serve } from "./browser-commands.mjs";

const [executablePath] = process.argv.slice(2);
// A microphone that gives a tone, and no question to the user.
const extraPrefsFirefox = { "media.navigator.streams.fake": true, "media.navigator.permission.disabled": true };
const browser = await puppeteer.launch({ browser: "firefox", executablePath, headless: true, extraPrefsFirefox });
const pages = new Map();
const of = (name) => pages.get(name).page;

const commands = {
  async open({ url, first, beside, looks, within_s: seconds }) {
    const context = beside ? of(beside).browserContext() : await browser.createBrowserContext();
    const page = await context.newPage();
    if (looks?.viewport) await page.setViewport(looks.viewport);
    if (first) await page.evaluateOnNewDocument(first);
    const name = `p${pages.size + 1}`;
    const seen = [];
    page.on("pageerror", (error) => seen.push(String(error)));
    pages.set(name, { page, seen });
    page.setDefaultTimeout(1000 * seconds);
    await page.goto(url);
    return name;
  },
  async evaluate({ page, script }) {
    return of(page).evaluate(script);
  },
  async fill({ page, selector, text }) {
    await of(page).locator(selector).fill(text);
  },
  async click({ page, selector }) {
    await of(page).locator(selector).click();
  },
  async press({ page, key }) {
    await of(page).keyboard.press(key);
  },
  async select({ page, selector, value }) {
    await of(page).select(selector, value);
  },
  async screenshot({ page, path }) {
    await of(page).screenshot({ path });
  },
  async reload({ page }) {
    await of(page).reload();
  },
  async errors({ page }) {
    return pages.get(page).seen;
  },
  async close({ page }) {
    await of(page).close();
  },
};

await serve(await browser.version(), commands);
await browser.close();
