// OpenAI's SDK for JavaScript, told by lines of JSON on stdin what to do; it says what came of it.
import { createInterface } from 'node:readline';
import OpenAI from 'openai';

const say = (said) => process.stdout.write(JSON.stringify(said) + '\n');
const apiKey = process.env.API_KEY || 'none';
const at = (url) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });

async function hear(stream, upto) {
  const events = [];
  for await (const event of stream) {
    events.push(event);
    if (event.sequence_number === upto) break; // which hangs up
  }
  return events;
}

async function helped(stream, upto) {
  const events = [];
  for await (const event of stream) {
    events.push(event);
    if (event.sequence_number === upto) say({ events });
  }
  return { events, final: await stream.finalResponse() };
}

const ops = {
  // Chat completions: the answer, or up to so many chunks and then hung up.
  chat: async ({ url, body, upto }) => {
    const chunks = [];
    for await (const chunk of await at(url).chat.completions.create(body)) {
      chunks.push(chunk);
      if (chunks.length === upto) break;
    }
    return chunks;
  },
  models: async ({ url }) => {
    const ids = [];
    for await (const model of at(url).models.list()) ids.push(model.id);
    return ids;
  },
  create: async ({ url, body, upto }) => hear(await at(url).responses.create(body), upto),
  retrieve: async ({ url, id, query }) => hear(await at(url).responses.retrieve(id, query)),
  helper: async ({ url, body, upto }) => helped(at(url).responses.stream(body), upto),
  call: async ({ url, name, args }) => (await at(url).responses[name](...args)) ?? null,
  items: async ({ url, id, query }) => {
    const items = [];
    for await (const item of at(url).responses.inputItems.list(id, query)) items.push(item);
    return items;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { op, ...told } = JSON.parse(line);
  try {
    say({ value: await ops[op](told) });
  } catch (error) {
    const { name, status, code, message } = error;
    say({ error: { kind: error.constructor.name, name, status, code, message } });
  }
}
