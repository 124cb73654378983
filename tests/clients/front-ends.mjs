// The parts of LobeChat, LobeHub and LibreChat that speak to a model server, and LangChain, told by lines
// of JSON on stdin what to ask. bundle-front-ends.mjs makes one program of them.
import { createInterface } from 'node:readline';
import { ChatOpenAI } from '@langchain/openai';
import { ChatOpenAI as LibreChatOpenAI } from 'librechat';
import { LobeOpenAI } from 'lobechat';
import { LobeOpenAI as LobeHubOpenAI } from 'lobehub';
import { agentRuntimeClient } from 'lobehub-agent';

const apiKey = process.env.API_KEY || 'none';
console.error = () => {}; // LobeChat repeats each error there

const messages = [{ role: 'user', content: 'tell me' }];
const shown = ({ name, status, code, type, message }) => ({ name, status, code, type, message });

// LobeChat and LobeHub answer their own pages with server-sent events: text, error, and others.
async function lobe(Client, { url, body, lists }) {
  const runtime = new Client({ apiKey, baseURL: `${url}/v1` });
  let answer;
  try {
    answer = await runtime.chat({ model: 'demo', messages, temperature: 1, ...body });
  } catch (refusal) {
    return { refusal };
  }
  const said = { text: '' };
  if (lists) said.kinds = [];
  let events = '';
  try {
    for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) events += piece;
  } catch ({ message }) {
    said.broken = message;
  }
  for (const [, kind, data] of events.matchAll(/^event: (.*)\ndata: (.*)$/gm)) {
    if (lists && JSON.parse(data) && said.kinds.at(-1) !== kind) said.kinds.push(kind);
    if (kind === 'usage') said.usage = JSON.parse(data);
    if (kind === 'text') said.text += JSON.parse(data) ?? '';
    if (kind === 'error') said.error = JSON.parse(data);
  }
  return said;
}

// Counts the requests, because LangChain repeats some by itself.
async function langchain(Client, { url, body, isResponses, isStream }) {
  let requests = 0;
  const counted = (...told) => {
    requests += 1;
    return fetch(...told);
  };
  const client = new Client({
    model: 'demo',
    apiKey,
    useResponsesApi: isResponses,
    modelKwargs: body,
    configuration: { baseURL: `${url}/v1`, fetch: counted },
  });
  let text = '';
  try {
    if (isStream) for await (const piece of await client.stream('tell me')) text += piece.text;
    else text = (await client.invoke('tell me')).text;
  } catch (error) {
    return { text, requests, error: shown(error) };
  }
  return { text, requests };
}

// LobeHub's own reader of an operation, for one connection: it does not come back by itself.
async function operation({ url, id, lastEventId }) {
  globalThis.window = globalThis; // where the client looks for fetch
  agentRuntimeClient.baseUrl = `${url}/api/agent`;
  const said = { text: '', kinds: [], errors: [] };
  await new Promise((resolve) => {
    agentRuntimeClient.createStreamConnection(id, {
      lastEventId,
      onDisconnect: resolve,
      onError: ({ message }) => resolve(said.errors.push(message)),
      onEvent: ({ type, data }) => {
        said.kinds.push(type);
        if (data?.chunkType === 'text') said.text += data.content;
      },
    });
  });
  return said;
}

const ops = {
  operation,
  lobechat: (told) => lobe(LobeOpenAI, told),
  lobehub: (told) => lobe(LobeHubOpenAI, told),
  langchain: (told) => langchain(ChatOpenAI, told),
  librechat: (told) => langchain(LibreChatOpenAI, told),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { op, ...told } = JSON.parse(line);
  process.stdout.write(JSON.stringify(await ops[op](told)) + '\n');
}
