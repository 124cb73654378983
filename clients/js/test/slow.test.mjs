// A consumer that is slower than its connection: what waits for it is bounded, and nothing is lost.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Tailrace } from '../.build/client.js'
import { settle } from './clock.mjs'

const LIMIT = 1_048_576
const PIECE = 'x'.repeat(10_000)
const COUNT = 400 // four times the limit

/** The log of one answer, which a connection delivers as fast as it is read. */
class Server {
  events = [
    { type: 'start', attempt: 1, model: 'demo' },
    ...Array.from({ length: COUNT }, (_, at) => ({ type: 'token', text: `${at} ${PIECE}` })),
    { type: 'end', status: 'completed', finish_reason: 'stop' },
  ].map((event, at) => ({ ...event, id: `1-${at + 1}` }))
  connections = 0
  open = 0
  delivered = 0

  from = (cursor) => this.events.slice(cursor ? Number(cursor.split('-')[1]) : 0)

  text = () => this.events.map(({ text = '' }) => text).join('')

  fetch = async (url, { signal }) => {
    const { searchParams, pathname } = new URL(url)
    const json = (content) => new Response(JSON.stringify(content), { headers: { 'content-type': 'application/json' } })
    if (!pathname.endsWith('/events')) return json({ id: 'gen_a', status: 'completed', text: this.text(), last_event_id: this.events.at(-1).id })
    this.connections += 1
    const left = this.from(searchParams.get('last_event_id'))
    if (searchParams.has('wait')) {
      const events = left.slice(0, 50)
      return json({ events, last_event_id: events.at(-1).id, done: events.length === left.length })
    }
    this.open += 1
    signal.addEventListener('abort', () => { this.open -= 1 }, { once: true })
    const isSse = !url.includes('ndjson') && this.kind === 'sse'
    const body = new ReadableStream({
      pull: async (controller) => {
        await settle()
        const event = left.shift()
        if (!event) return controller.close()
        this.delivered += 1
        const { id, type, ...members } = event
        const said = isSse ? `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(members)}\n\n` : `${JSON.stringify(event)}\n`
        controller.enqueue(new TextEncoder().encode(said))
      },
    })
    return new Response(body, { headers: { 'content-type': isSse ? 'text/event-stream' : 'application/x-ndjson' } })
  }

  get WebSocket() {
    const server = this
    return class {
      constructor() {
        server.open += 1
        this.readers = new Map()
        queueMicrotask(() => this.onopen?.())
      }
      send(text) {
        const { type, id, last_event_id } = JSON.parse(text)
        if (type === 'unsubscribe') this.readers.delete(id)
        if (type !== 'subscribe') return
        server.connections += 1
        const left = server.from(last_event_id)
        this.readers.set(id, left)
        const next = () => {
          const event = this.readers.get(id) === left && left.shift()
          if (!event) return
          server.delivered += 1
          const { id: event_id, ...members } = event
          this.onmessage?.({ data: JSON.stringify({ ...members, id, event_id }) })
          setImmediate(next)
        }
        setImmediate(next)
      }
      close() {
        server.open -= 1
      }
    }
  }
}

function answerOf(transport) {
  const server = new Server()
  server.kind = transport
  const { fetch, WebSocket } = server
  const client = new Tailrace({ url: 'http://node', transport, fetch, WebSocket, random: () => 0 })
  return { server, answer: client.attach('gen_a'), client }
}

for (const transport of ['websocket', 'sse', 'ndjson', 'poll']) {
  test(`${transport}: the connection is left while the queue is full, and the consumer gets everything`, async () => {
    const { server, answer, client } = answerOf(transport)
    const events = []
    let most = 0
    for await (const event of answer) {
      events.push(event)
      if (events.length % 30 !== 1) continue
      while (answer.reader) await settle()
      most = Math.max(most, JSON.stringify(answer.queue).length)
    }
    client.close()

    assert.deepEqual(events.map(({ id }) => id), server.events.map(({ id }) => id))
    assert.equal(events.map(({ text = '' }) => text).join(''), server.text())
    assert.ok(most > LIMIT / 2 && most < LIMIT + 2 * PIECE.length, `${most} characters waited`)
    assert.ok(server.connections >= 3, `${server.connections} connections`)
  })
}

test('who only waits for the result keeps no events', async () => {
  const { answer } = answerOf('ndjson')
  const result = answer.result()
  while (!answer.reading.isDone) {
    assert.ok(answer.queue.length * PIECE.length < LIMIT + 2 * PIECE.length)
    await settle()
  }
  assert.equal((await result).text.length, answer.textSoFar.length)
  assert.equal(answer.queue.length, 0)
})

test('an iteration that begins while the result is waited for has every event', async () => {
  const { server, answer } = answerOf('ndjson')
  const result = answer.result()
  while (!answer.hasGap) await settle()
  const ids = []
  for await (const { id } of answer) ids.push(id)

  assert.deepEqual(ids, server.events.map(({ id }) => id))
  assert.equal((await result).text, server.text())
})

test('an iteration that stops in a full queue does not stop the result', async () => {
  const { server, answer } = answerOf('ndjson')
  const result = answer.result()
  for await (const { id } of answer) {
    if (id === '1-1') while (answer.reader) await settle()
    if (id === '1-2') break
  }
  assert.equal((await result).text, server.text())
})
