// Reads commands from stdin and writes their answers to stdout, for browser.mjs and firefox.mjs.

import { createInterface } from "node:readline";

function say(message) {
  process.stdout.write(JSON.stringify(message) + "\n");
}

/** Returns when stdin ends. `version` is the first line of the output. */
export async function serve(version, commands) {
  const run = async ({ id, do: name, ...given }) => {
    try {
      say({ id, value: (await commands[name](given)) ?? null });
    } catch (error) {
      say({ id, error: String(error) });
    }
  };
  say({ id: 0, value: version });
  for await (const line of createInterface({ input: process.stdin })) run(JSON.parse(line));
}
