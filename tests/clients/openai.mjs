// OpenAI's SDK for JavaScript, told by lines of JSON on stdin what to do; it says what came of it.
import { createInterface } from 'node:readline';
import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';

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

// The WebSocket mode: sends events, and hears until so many responses have ended. After a cut the
// SDK opens the next socket, and this program asks for the rest of each response.
async function converse({ url, events, ends, upto }) {
  const heard = [];
  const running = new Map(); // by stream: the id of its response and the last number
  let cuts = 0;
  const askForTheRest = ({ attempt }) => {
    if (attempt > 1) return;
    cuts += 1;
    for (const [stream_id, [response_id, starting_after]] of running)
      ws.send({ type: 'response.resume', response_id, starting_after, stream_id });
  };
  const reconnect = { onReconnecting: askForTheRest, initialDelay: 50, maxRetries: 20 };
  const ws = new ResponsesWS(at(url), { reconnect });
  try {
    for (const event of events) ws.send(event);
    for await (const { type, message, error } of ws.stream()) {
      if (type === 'error' && !error.error) continue; // of a socket that is opened again
      if (type !== 'message' && type !== 'error') continue;
      const event = message ?? error.error;
      heard.push(event);
      const name = event.stream_id ?? 'default';
      if (event.type === 'response.created') running.set(name, [event.response.id]);
      if (running.has(name)) running.get(name)[1] = event.sequence_number;
      if (heard.length === upto) say({ heard });
      if (['response.completed', 'response.failed', 'error'].includes(event.type)) {
        running.delete(name);
        ends -= 1;
        if (!ends) break;
      }
    }
  } finally {
    ws.close();
  }
  return { heard, cuts };
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
  socket: converse,
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
