// A Chromium that pages are opened in, told what to do on stdin and answering on stdout, one JSON
// object a line: {"id":1,"do":"open","url":…} → {"id":1,"value":"p1"} or {"id":1,"error":"…"}.
// tests/support/browser.py is its other half. argv: the path of a Chromium, and
// its further flags.

import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [executablePath, ...flags] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", ...flags] });
const pages = new Map();

const commands = {
  async open({ url, first, within_s: seconds }) {
    const page = await browser.newPage();
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

function say(message) {
  process.stdout.write(JSON.stringify(message) + "\n");
}

async function run({ id, do: name, ...given }) {
  try {
    say({ id, value: (await commands[name](given)) ?? null });
  } catch (error) {
    say({ id, error: String(error) });
  }
}

say({ id: 0, value: browser.version() });
for await (const line of createInterface({ input: process.stdin })) {
  run(JSON.parse(line));
}
await browser.close();
