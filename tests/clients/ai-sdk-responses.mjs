// The AI SDK with OpenAI's provider, which speaks Responses: a tool and two turns, told by lines of
// JSON on stdin. It says the answers, and which items of the requests were only named.
import { createInterface } from 'node:readline';
import { generateText, stepCountIs, streamText, tool } from 'ai';
import { createOpenAI } from '@ai-sdk/openai';
import { z } from 'zod';

const say = (said) => process.stdout.write(JSON.stringify(said) + '\n');

async function chat({ urls, isStream }) {
  const [referenced, ignored] = [[], []];
  let calls = 0;
  const openai = createOpenAI({
    baseURL: `${urls[0]}/v1`,
    apiKey: process.env.API_KEY || 'none',
    fetch: async (url, init) => {
      const body = JSON.parse(init.body);
      const { input } = body;
      const isAnswered = input.at(-1).type === 'function_call_output';
      const told = isAnswered ? {} : { reasoning_tokens: 4, tool_call: 'weather' };
      body.demo = { tokens: 3, tokens_per_s: 0, first_token_s: 0, ...told };
      referenced.push(input.filter((item) => item.type === 'item_reference').length);
      const node = urls[calls++ % urls.length]; // each request goes to the next node
      const response = await fetch(url.replace(urls[0], node), {
        ...init,
        body: JSON.stringify(body),
      });
      ignored.push(response.headers.get('x-tailrace-ignored'));
      return response;
    },
  });
  const execute = async () => 'rain';
  const weather = tool({ description: 'd', inputSchema: z.object({}), execute });
  const asked = {
    model: openai('demo'),
    maxRetries: 0,
    stopWhen: stepCountIs(2),
    tools: { weather, web_search: openai.tools.webSearch({}) },
    providerOptions: { openai: { reasoningSummary: 'auto', forceReasoning: true } },
  };
  const ask = async (messages) => {
    if (!isStream) return generateText({ ...asked, messages });
    const result = streamText({ ...asked, messages });
    return { text: await result.text, response: await result.response, steps: await result.steps };
  };
  const messages = [{ role: 'user', content: 'one' }];
  const first = await ask(messages);
  messages.push(...first.steps[0].response.messages, { role: 'user', content: 'two' });
  const second = await ask(messages);
  const reasoning = first.steps[0].reasoningText;
  return { reasoning, texts: [first.text, second.text], referenced, ignored };
}

for await (const line of createInterface({ input: process.stdin })) {
  try {
    say({ value: await chat(JSON.parse(line)) });
  } catch (error) {
    say({ error: String(error), body: error.responseBody });
  }
}
