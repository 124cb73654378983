// Other clients that read a broken answer on, told by lines of JSON on stdin what to read. Each is used
// as its documentation says, with its defaults. A run is {url, start, body, id, limit_s}: `url` goes
// through the broken network, and `start` is where the prompt goes, for clients that only read.
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { EventSource } from 'eventsource'
import { AbstractChat, DefaultChatTransport } from 'ai'

globalThis.window = globalThis // fetch-event-source is for browsers
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} }
const { fetchEventSource } = await import('@microsoft/fetch-event-source')
const PAUSE_MS = 1_000

/** Text and ids as a page would keep them. */
class Page {
  text = ''
  ids = []
  take(type, id, data) {
    if (id) this.ids.push(id)
    if (type === 'token') this.text += JSON.parse(data).text
    if (type === 'reset') this.text = ''
  }
}

async function start(url, body) {
  const response = await fetch(`${url}/v1/generations`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
  })
  return (await response.json()).id
}

const readers = {
  async eventsource(run, page) {
    const id = await start(run.start, run.body)
    const source = new EventSource(`${run.url}/v1/generations/${id}/events`)
    try {
      return await new Promise((resolve) => {
        for (const type of ['start', 'token', 'reset', 'end']) {
          source.addEventListener(type, (event) => {
            page.take(type, event.lastEventId, event.data)
            if (type === 'end') resolve('ended')
          })
        }
        source.onerror = () => source.readyState === 2 && resolve('gave up')
      })
    } finally {
      source.close()
    }
  },

  async 'fetch-event-source'(run, page) {
    const id = await start(run.start, run.body)
    let has_ended = false
    const stop = new AbortController()
    await fetchEventSource(`${run.url}/v1/generations/${id}/events`, {
      openWhenHidden: true,
      signal: stop.signal,
      onmessage(message) {
        page.take(message.event, message.id, message.data)
        if (message.event === 'end') {
          has_ended = true
          stop.abort()
        }
      },
    })
    return has_ended ? 'ended' : 'took a part for the whole'
  },

  async 'use-chat'(run, page) {
    return chat(run, page, false)
  },

  /** The page calls `resumeStream` a second after each error, again and again. */
  async 'use-chat-resumed'(run, page) {
    return chat(run, page, true)
  },

  /** `resumeAt` is the number of characters that have come; the library has no client. */
  async 'resumable-stream'(run, page) {
    const made = { method: 'POST', body: JSON.stringify({ pieces: run.pieces, per_s: run.per_s }) }
    let stream = ''
    let isCreated = false
    for (let isDone = false; !isDone; ) {
      try {
        const response = await fetch(`${run.url}/streams/${run.id}${isCreated ? `?resumeAt=${stream.length}` : ''}`, isCreated ? undefined : made)
        if (isCreated && response.status === 422) break // the stream is done
        if (!response.headers.get('content-type')?.startsWith('text/event-stream')) throw new Error(`status ${response.status}`)
        isCreated = true
        const decoder = new TextDecoder()
        for await (const data of response.body) stream += decoder.decode(data, { stream: true })
        isDone = true
      } catch {
        await sleep(PAUSE_MS)
      }
    }
    for (const [, data] of stream.matchAll(/^data: (.*)\n\n/gm)) page.text += JSON.parse(data).text
    return 'ended'
  },
}

class State {
  status = 'ready'
  error = undefined
  messages = []
  snapshot = (value) => structuredClone(value)
  pushMessage = (message) => { this.messages = [...this.messages, message] }
  popMessage = () => { this.messages = this.messages.slice(0, -1) }
  replaceMessage = (index, message) => {
    this.messages = this.messages.map((old, at) => (at === index ? structuredClone(message) : old))
  }
}
class Chat extends AbstractChat {}

async function chat(run, page, resumes) {
  const state = new State()
  const transport = new DefaultChatTransport({
    api: `${run.url}/ai-sdk/chat`, body: { model: run.body.model, params: run.body.params, resetStep: true },
  })
  const one = new Chat({ id: run.id, state, transport, onError() {} })
  await one.sendMessage({ text: run.body.prompt })
  while (resumes && state.status === 'error') {
    await sleep(PAUSE_MS)
    await one.resumeStream()
  }
  const answers = state.messages.filter((each) => each.role === 'assistant')
  page.text = answers.flatMap((each) => each.parts).filter((part) => part.type === 'text').map((part) => part.text).join('')
  return state.status === 'ready' ? 'ended' : 'shows an error'
}

async function read(run) {
  const page = new Page()
  const late = sleep(run.limit_s * 1000, 'hangs', { ref: false })
  const done = readers[process.argv[2]](run, page).catch((error) => `fails: ${error.message}`)
  const how = await Promise.race([done, late])
  return { how, text: page.text, ids: page.ids }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { runs } = JSON.parse(line)
  process.stdout.write(JSON.stringify({ value: await Promise.all(runs.map(read)) }) + '\n')
}
process.exit(0)
