// Vercel's AI SDK without a framework, told by lines of JSON on stdin what to do: chats as useChat
// holds them, each with one of the three transports, or with the one of the version before (`ai` 6). It says what became of a chat.
import { createInterface } from 'node:readline';
import { AbstractChat, DefaultChatTransport, WebSocketChatTransport } from 'ai';
import * as six from 'ai6';
import { WorkflowChatTransport } from '@ai-sdk/workflow/client';
import WebSocket from 'ws';

console.error = () => {}; // WorkflowChatTransport tells each cut; what became of it is asserted
const say = (said) => process.stdout.write(JSON.stringify(said) + '\n');

class State {
  status = 'ready';
  error = undefined;
  messages = [];
  changed = () => {};
  snapshot = (value) => structuredClone(value);
  pushMessage = (message) => this.put([...this.messages, message]);
  popMessage = () => this.put(this.messages.slice(0, -1));
  replaceMessage = (index, message) =>
    this.put(this.messages.map((old, at) => (at === index ? structuredClone(message) : old)));
  put(messages) {
    this.messages = messages;
    this.changed();
  }
}

class Chat extends AbstractChat {}
class Chat6 extends six.AbstractChat {}

const chats = {};
const key = process.env.API_KEY;
// WorkflowChatTransport has no option for headers.
const allowed = (input, init) =>
  fetch(input, { ...init, headers: { ...init?.headers, ...(key && { Authorization: `Bearer ${key}` }) } });
const query = key ? `?access_token=${encodeURIComponent(key)}` : '';

function transport(kind, url, requests) {
  const api = `${url}/ai-sdk/chat`;
  const counted = async (input, init) => {
    const response = await allowed(input, init);
    requests.push([init?.method ?? 'GET', String(input).replace(api, ''), response.status]);
    return response;
  };
  if (kind === 'default') return new DefaultChatTransport({ api, fetch: counted });
  if (kind === 'default6') return new six.DefaultChatTransport({ api, fetch: counted });
  if (kind === 'workflow') return new WorkflowChatTransport({ api, fetch: counted });
  return new WebSocketChatTransport({ url: `${url}/ai-sdk/ws${query}`, webSocket: WebSocket });
}

const textOf = (message) =>
  message.parts.filter((part) => part.type === 'text').map((part) => part.text).join('');

function standing({ state, requests, finishes, data }) {
  const messages = state.messages.map((m) => ({ id: m.id, role: m.role, text: textOf(m), parts: m.parts }));
  return { status: state.status, error: state.error?.message, messages, requests, finishes, data };
}

// Answers once the answer has so many characters, or is over.
async function upTo(one, characters) {
  const { state } = one;
  let isOver = false;
  one.doing.then(() => { isOver = true; state.changed(); });
  const last = () => state.messages.at(-1);
  const isThere = () => isOver || (last()?.role === 'assistant' && textOf(last()).length >= characters);
  await new Promise((resolve) => {
    state.changed = () => isThere() && resolve();
    state.changed();
  });
  state.changed = () => {};
  return standing(one);
}

const ops = {
  open: ({ name, kind, url, id, messages = [] }) => {
    const requests = [], finishes = [], data = [], state = new State();
    state.messages = messages;
    const chat = new (kind === 'default6' ? Chat6 : Chat)({
      id, state,
      transport: transport(kind, url, requests),
      onFinish: ({ finishReason, isAbort, isDisconnect, isError }) =>
        finishes.push({ finishReason, isAbort, isDisconnect, isError }),
      onData: (part) => data.push(part),
    });
    chats[name] = { chat, state, requests, finishes, data, doing: Promise.resolve() };
    return {};
  },
  send: ({ name, text, body, characters }) => {
    const one = chats[name];
    one.doing = one.chat.sendMessage({ text }, { body });
    return upTo(one, characters ?? Infinity);
  },
  resume: ({ name, characters }) => {
    const one = chats[name];
    one.doing = one.chat.resumeStream();
    return upTo(one, characters ?? Infinity);
  },
  stop: async ({ name }) => {
    await chats[name].chat.stop();
    await chats[name].doing;
    return standing(chats[name]);
  },
  over: async ({ name }) => {
    await chats[name].doing;
    return standing(chats[name]);
  },
  // The transport by itself, from a number on: the chunks that it gave.
  chunks: async ({ url, id, startIndex }) => {
    const api = `${url}/ai-sdk/chat`;
    const stream = await new WorkflowChatTransport({ api, fetch: allowed }).reconnectToStream({ chatId: id, startIndex });
    return Array.fromAsync ? Array.fromAsync(stream) : collected(stream);
  },
};

async function collected(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { op, ...told } = JSON.parse(line);
  try {
    say({ value: await ops[op](told) });
  } catch (error) {
    say({ error: `${error.name}: ${error.message}` });
  }
}
