// OpenAI's SDK in a page, as front ends use it that ask the server from the browser.
import OpenAI from 'openai';

window.ask = async (baseURL, body) => {
  const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0, dangerouslyAllowBrowser: true });
  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  let text = '';
  const { data, response } = await client.chat.completions.create(body).withResponse();
  for await (const chunk of data) text += chunk.choices[0].delta.content ?? '';
  const gone = await client.chat.completions.create({ ...body, model: 'no-such-model' }).catch((e) => e.code);
  return { models, text, named: response.headers.get('x-generation-id'), gone };
};
