// AG-UI's official client, told by lines of JSON; 0 is the last version before 1.0.
//
//   run     one run of an agent; says the events, the messages and the state at its end
//   golden  the bytes of recorded logs, as a run reads them
import { createInterface } from 'node:readline';
import { readFileSync } from 'node:fs';
import * as client1 from '@ag-ui/client';
import * as client0 from 'ag-ui-client0';
import { decode } from '@ag-ui/proto';
import { resumingFetch } from '../../clients/js/dist/ag-ui.js';

const CLIENTS = { 1: client1, 0: client0 };
const PROTO = 'application/vnd.ag-ui.event+proto';
const random = () => 0.1;
const warnings = [];
console.warn = (...said) => warnings.push(said.join(' '));
console.error = () => {};
// After a cut the client cancels its reader, and nobody handles the error of that.
process.on('unhandledRejection', () => {});
const say = (said) => process.stdout.write(JSON.stringify(said) + '\n');

// The client asks for server-sent events; this one asks for protocol buffers.
const binaryFetch = (url, init) => fetch(url, { ...init, headers: { ...init.headers, Accept: PROTO } });
const FETCHES = { plain: fetch, resuming: resumingFetch({ random }), binary: binaryFetch };

async function run({ version = 1, url, fetch, thread, run, messages, state, characters, ...asked }) {
  warnings.length = 0;
  const agent = new CLIENTS[version].HttpAgent({
    url, fetch, threadId: thread, initialMessages: messages, initialState: state,
  });
  const events = [];
  let [text, error, outcome] = ['', undefined, undefined];
  const subscriber = {
    onEvent: ({ event }) => {
      events.push(event);
      if (event.type !== 'TEXT_MESSAGE_CONTENT') return;
      text += event.delta;
      if (characters !== undefined && text.length >= characters) agent.abortRun();
    },
    onRunFinishedEvent: (told) => { outcome = told.outcome; },
  };
  await agent.runAgent({ runId: run, ...asked }, subscriber).catch((e) => { error = e.message; });
  const shown = agent.messages.slice(messages.length).filter(({ role }) => role !== 'activity');
  return {
    kinds: events.map(({ type }) => type), last: events.at(-1), text, error, outcome,
    shown, all: agent.messages, state: agent.state, warnings: [...warnings],
  };
}

const ops = {
  run: ({ fetch, ...asked }) => run({ fetch: FETCHES[fetch ?? 'plain'], ...asked }),

  golden: async ({ version, paths }) => {
    const found = {};
    for (const [name, path] of Object.entries(paths)) {
      const bytes = readFileSync(path);
      const type = name.startsWith('ag-ui-proto') ? PROTO : 'text/event-stream';
      const answer = async () => new Response(bytes, { headers: { 'content-type': type } });
      const messages = [{ id: 'u', role: 'user', content: 'Hi' }];
      const of = { url: 'http://nowhere', thread: 't1', run: 'r1', state: { n: 0 }, messages };
      found[name] = await run({ version, fetch: answer, ...of });
    }
    return found;
  },

  // Every message of the binary form, decoded.
  decode: async ({ base64 }) => {
    const bytes = Buffer.from(base64, 'base64');
    const events = [];
    for (let at = 0; at < bytes.length; at += 4 + bytes.readUInt32BE(at)) {
      events.push(decode(bytes.subarray(at + 4, at + 4 + bytes.readUInt32BE(at))));
    }
    return events;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { op, ...told } = JSON.parse(line);
  await ops[op](told).then((value) => say({ value }), (error) => say({ error: String(error.stack ?? error) }));
}
