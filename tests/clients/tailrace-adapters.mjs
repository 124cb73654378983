// The adapters of the package `tailrace` with the real packages that they serve; told by lines of JSON.
import { createInterface } from 'node:readline'
import { AbstractChat } from 'ai'
import OpenAI from 'openai'
import { WebSocket } from 'ws'
import { Tailrace } from '../../clients/js/dist/index.js'
import { TailraceChatTransport } from '../../clients/js/dist/ai-sdk.js'
import { TailraceBatches } from '../../clients/js/dist/batch.js'
import { deepChatHandler } from '../../clients/js/dist/deep-chat.js'
import { resumingFetch } from '../../clients/js/dist/openai.js'
import { TailraceProducers } from '../../clients/js/dist/produce.js'

const say = (said) => process.stdout.write(JSON.stringify(said) + '\n')
const random = () => 0.1

class State {
  status = 'ready'
  error = undefined
  messages = []
  changed = () => {}
  snapshot = (value) => structuredClone(value)
  pushMessage = (message) => this.put([...this.messages, message])
  popMessage = () => this.put(this.messages.slice(0, -1))
  replaceMessage = (index, message) =>
    this.put(this.messages.map((old, at) => (at === index ? structuredClone(message) : old)))
  put(messages) {
    this.messages = messages
    this.changed()
  }
}
class Chat extends AbstractChat {}

const textOf = (state) =>
  (state.messages.at(-1)?.parts ?? []).filter((part) => part.type === 'text').map((part) => part.text).join('')

const chatOf = ({ url, id, body }) => {
  const state = new State()
  return { state, chat: new Chat({ id, state, transport: new TailraceChatTransport({ url, body, random }) }) }
}

const ops = {
  openai: async ({ url, body }) => {
    const client = new OpenAI({
      baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0, dangerouslyAllowBrowser: true, fetch: resumingFetch({ random }),
    })
    const stream = await client.chat.completions.create({ ...body, stream: true })
    let text = ''
    const finishes = []
    let id
    for await (const chunk of stream) {
      id = chunk.id
      text += chunk.choices[0]?.delta.content ?? ''
      if (chunk.choices[0]?.finish_reason) finishes.push(chunk.choices[0].finish_reason)
    }
    return { id, text, finishes }
  },
  /** Run a batch of so many requests; `cancels` ends it at once. */
  batch: async ({ url, count, params, cancels }) => {
    const batches = new TailraceBatches({ url, random })
    const requests = Object.fromEntries(Array.from({ length: count }, (_, n) => [`c${n}`, { prompt: `line ${n}`, params }]))
    const batch = await batches.create(requests)
    if (cancels) await batch.cancel()
    const events = []
    for await (const event of batch.events()) events.push(event)
    const lines = []
    for await (const line of batch.lines()) lines.push(line)
    return { events, lines, state: await batch.result() }
  },
  /** Write an answer, piece by piece. */
  produce: async ({ url, pieces }) => {
    const log = await new TailraceProducers({ url, random }).produce({ model: 'report', prompt: 'Write' })
    for (const piece of pieces) {
      await log.agent('writer').token(piece)
      await log.flush()
    }
    await log.end()
    return { id: log.id, status: log.status }
  },
  /** Send, and stop once the answer has so many characters. */
  useChat: async ({ url, id, body, prompt, stopAt }) => {
    const { state, chat } = chatOf({ url, id, body })
    const doing = chat.sendMessage({ text: prompt })
    if (stopAt) {
      await new Promise((resolve) => {
        state.changed = () => textOf(state).length >= stopAt && resolve()
      })
      await chat.stop()
    }
    await doing
    return { text: textOf(state), status: state.status, error: state.error?.message, id: state.messages.at(-1)?.id }
  },
  /** Two pages of one chat: the second finds the running answer. */
  resume: async ({ url, id, body, prompt }) => {
    const first = chatOf({ url, id, body })
    const doing = first.chat.sendMessage({ text: prompt })
    await new Promise((resolve) => {
      first.state.changed = () => textOf(first.state).length >= 20 && resolve()
    })
    const second = chatOf({ url, id, body })
    second.state.messages = structuredClone(first.state.messages.slice(0, 1))
    await second.chat.resumeStream()
    await doing
    return { first: textOf(first.state), second: textOf(second.state), status: second.state.status }
  },
  deepChat: async ({ url, options, text, stopAt }) => {
    const client = new Tailrace({ url, WebSocket, random })
    const said = []
    const signals = {
      onOpen: () => said.push('open'),
      onClose: () => said.push('close'),
      onResponse: (response) => {
        said.push(response)
        if (said.length === stopAt) signals.stopClicked.listener()
      },
      stopClicked: { listener: () => {} },
    }
    await deepChatHandler(client, options)({ messages: [{ role: 'user', text }] }, signals)
    client.close()
    return said
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  const { op, ...told } = JSON.parse(line)
  try {
    say({ value: await ops[op](told) })
  } catch (error) {
    say({ error: { name: error.name, message: error.message, code: error.code } })
  }
}
