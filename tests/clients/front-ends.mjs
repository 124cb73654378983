// The parts of LobeChat, LobeHub and LibreChat that speak to a model server, and LangChain, told by lines
// of JSON on stdin what to ask. bundle-front-ends.mjs makes one program of them.
import { createInterface } from 'node:readline';
import { ChatOpenAI } from '@langchain/openai';
import { ChatOpenAI as LibreChatOpenAI } from 'librechat';
import { LobeOpenAI } from 'lobechat';
import { LobeOpenAI as LobeHubOpenAI } from 'lobehub';
import { agentRuntimeClient } from 'lobehub-agent';
import { StreamEventManager } from 'lobehub-events';

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
  const said = { text: '', kinds: [], events: [], errors: [] };
  await new Promise((resolve) => {
    agentRuntimeClient.createStreamConnection(id, {
      lastEventId,
      onDisconnect: resolve,
      onError: ({ message }) => resolve(said.errors.push(message)),
      onEvent: ({ type, data }) => {
        said.kinds.push(type);
        said.events.push({ type, data });
        if (data?.chunkType === 'text') said.text += data.content;
      },
    });
  });
  return said;
}

// LobeHub's server publishes an operation of two steps. What it adds to its Redis stream
// agent_runtime_stream:{id} goes to the gateway instead, to the nodes in turn.
async function published({ urls, id }) {
  let entries = 0;
  const post = async (path, body, key) => {
    const url = `${urls[entries++ % urls.length]}/lobe-gateway/api/operations/${path}`;
    const headers = { 'content-type': 'application/json', 'idempotency-key': key };
    for (let tries = 0; tries < 2; tries++) {
      // Each one twice: a repeat must write nothing.
      const answer = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) });
      if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    }
  };
  const sent = [];
  globalThis.lobehubRedis = {
    expire: async () => 1,
    xadd: async (key, _max, _about, _count, _id, ...pairs) => {
      if (key !== `agent_runtime_stream:${id}`) throw new Error(key);
      const fields = {};
      for (let n = 0; n < pairs.length; n += 2) fields[pairs[n]] = pairs[n + 1];
      const { type, operationId, stepIndex, timestamp, data } = fields;
      const event = { type, operationId, stepIndex: +stepIndex, timestamp: +timestamp };
      sent.push({ ...event, data: JSON.parse(data) });
      await post('push-event', { operationId: id, event: sent.at(-1) }, `entry-${sent.length}`);
      return `${timestamp}-${sent.length}`;
    },
  };
  const events = new StreamEventManager();
  await post('init', { operationId: id, userId: 'user_1' }, 'init');
  await events.publishAgentRuntimeInit(id, { status: 'idle', maxSteps: 2, cost: 0.25 });
  const calls = [{ id: 't1', identifier: 'web', apiName: 'search', arguments: '{"q":"é"}' }];
  for (const step of [0, 1]) {
    await events.publishStreamEvent(id, { type: 'step_start', stepIndex: step, data: { step } });
    await events.publishStreamChunk(id, step, { chunkType: 'reasoning', reasoning: 'Hm. ' });
    for (const content of ['What ', 'a ', `day${step}. `])
      await events.publishStreamChunk(id, step, { chunkType: 'text', content });
    if (step === 0) {
      await events.publishStreamChunk(id, step, { chunkType: 'tools_calling', toolsCalling: calls });
      const result = { success: true, content: 'found' };
      const data = { isSuccess: true, executionTime: 1.5, result };
      await events.publishStreamEvent(id, { type: 'tool_end', stepIndex: step, data });
    }
    await events.publishStreamEvent(id, { type: 'step_complete', stepIndex: step, data: null });
  }
  await events.publishAgentRuntimeEnd(id, 1, { status: 'done' }, 'done');
  return { sent };
}

const ops = {
  published,
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
