// The client on a network of functions and a clock that the test moves.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Tailrace } from '../.build/client.js'
import { Clock, settle } from './clock.mjs'

const json = (body, status = 200) =>
  new Response(JSON.stringify(body), { status, headers: { 'content-type': 'application/json' } })
const line = (event) => JSON.stringify(event) + '\n'
const START = line({ id: '1-1', type: 'start', attempt: 1, model: 'demo' })
const END = line({ id: '1-3', type: 'end', status: 'completed', finish_reason: 'stop' })

/** A stream that the test writes. */
function stream(signal, headers = {}) {
  let controller
  const body = new ReadableStream({ start: (given) => { controller = given } })
  signal.addEventListener('abort', () => { try { controller.error(signal.reason) } catch {} })
  const response = new Response(body, { headers: { 'content-type': 'application/x-ndjson', ...headers } })
  return { response, write: (text) => controller.enqueue(new TextEncoder().encode(text)), close: () => controller.close() }
}

function network() {
  const clock = new Clock()
  const asked = []
  const fetch = (url, init) =>
    new Promise((resolve, reject) => {
      init.signal.addEventListener('abort', () => reject(init.signal.reason))
      asked.push({ url, init, resolve, reject })
    })
  return { clock, asked, options: { url: 'http://node', clock, fetch, random: () => 0.5, transport: 'ndjson' } }
}

async function collect(answer) {
  const events = []
  for await (const event of answer) events.push(event.type)
  return events
}

test('after a sleep of an hour the client comes back at its cursor', async () => {
  const { clock, asked, options } = network()
  const reading = collect(new Tailrace(options).attach('gen_a'))
  await settle()
  const first = stream(asked[0].init.signal, { 'x-heartbeat-s': '15' })
  asked[0].resolve(first.response)
  first.write(START)
  await settle()
  clock.at += 3_600_000
  await clock.move(2_000)
  assert.equal(asked.length, 2)
  assert.match(asked[1].url, /last_event_id=1-1$/)
  const second = stream(asked[1].init.signal)
  asked[1].resolve(second.response)
  second.write(END)
  await clock.move(10)
  assert.deepEqual(await reading, ['start', 'end'])
})

test('a body that ends properly without the end is not the end', async () => {
  const { clock, asked, options } = network()
  const reading = collect(new Tailrace(options).attach('gen_a'))
  await settle()
  const first = stream(asked[0].init.signal)
  asked[0].resolve(first.response)
  first.write(START)
  first.close()
  await clock.move(1_000)
  assert.equal(asked.length, 2)
  const second = stream(asked[1].init.signal)
  asked[1].resolve(second.response)
  second.write(END)
  await clock.move(10)
  assert.deepEqual(await reading, ['start', 'end'])
})

test('a token that has expired is asked for again, and the request is repeated once', async () => {
  const { asked, options } = network()
  const tokens = ['old', 'new']
  const fresh = []
  const token = async ({ isFresh }) => { fresh.push(isFresh); return tokens.shift() }
  const starting = new Tailrace({ ...options, token }).generate({ prompt: 'Hi' })
  await settle()
  assert.equal(asked[0].init.headers.authorization, 'Bearer old')
  asked[0].resolve(json({ error: { code: 'unauthorized', message: 'no', retryable: false } }, 401))
  await settle()
  assert.equal(asked[1].init.headers.authorization, 'Bearer new')
  assert.equal(asked[1].init.headers['idempotency-key'], asked[0].init.headers['idempotency-key'])
  asked[1].resolve(json({ id: 'gen_a' }, 202))
  assert.equal((await starting).id, 'gen_a')
  assert.deepEqual(fresh, [false, true])
})

test('a token that is refused twice is final', async () => {
  const { asked, options } = network()
  const starting = new Tailrace({ ...options, token: () => 'bad' }).generate({ prompt: 'Hi' })
  const refused = () => json({ error: { code: 'unauthorized', message: 'no', retryable: false } }, 401)
  await settle()
  asked[0].resolve(refused())
  await settle()
  asked[1].resolve(refused())
  await assert.rejects(starting, { code: 'unauthorized', retryable: false })
})

test('a proxy that holds a stream back is found by a poll, and the poll goes on', async () => {
  const { clock, asked, options } = network()
  const reading = collect(new Tailrace({ ...options, transport: 'auto', WebSocket: undefined }).attach('gen_a'))
  await settle()
  const held = new Response(new ReadableStream({}), { headers: { 'content-type': 'text/event-stream' } })
  asked[0].resolve(held)
  await clock.move(5_000)
  assert.match(asked[1].url, /wait=0$/)
  asked[1].resolve(json({ events: [JSON.parse(START)], last_event_id: '1-1', done: false }))
  await settle()
  await clock.move(10)
  assert.match(asked[2].url, /wait=15$/)
  asked[2].resolve(json({ events: [JSON.parse(START), JSON.parse(END)], last_event_id: '1-3', done: true }))
  assert.deepEqual(await reading, ['start', 'end'])
})

test('silence for ever ends in an error that is retryable, not in an end', async () => {
  const { clock, asked, options } = network()
  const reading = collect(new Tailrace({ ...options, giveUpMs: 60_000 }).attach('gen_a'))
  const failing = assert.rejects(reading, { code: 'gave_up', retryable: true })
  for (let round = 0; round < 60; round += 1) await clock.move(5_000)
  await failing
  assert.ok(asked.length > 3)
})

test('the page that was reloaded goes on at the stored cursor', async () => {
  const kept = new Map()
  const storage = {
    getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key),
  }
  const { clock, asked, options } = network()
  const answer = new Tailrace({ ...options, storage }).attach('gen_a')
  const iterator = answer[Symbol.asyncIterator]()
  const first = iterator.next()
  await settle()
  const before = stream(asked[0].init.signal)
  asked[0].resolve(before.response)
  before.write(START)
  await first
  await clock.move(300)

  const reloaded = new Tailrace({ ...options, storage })
  const [found] = await reloaded.restore()
  assert.deepEqual([found.id, found.cursor], ['gen_a', '1-1'])
  const reading = collect(found)
  await settle()
  const after = stream(asked[1].init.signal)
  asked[1].resolve(after.response)
  after.write(END)
  await clock.move(10)
  assert.deepEqual(await reading, ['end'])
  await clock.move(300)
  assert.equal(kept.size, 0)
})

test('a second iteration goes on after the event at which the first one stopped', async () => {
  const { clock, asked, options } = network()
  const answer = new Tailrace(options).attach('gen_a')
  const first = (async () => { for await (const event of answer) return event.type })()
  await settle()
  const one = stream(asked[0].init.signal)
  asked[0].resolve(one.response)
  one.write(START)
  assert.equal(await first, 'start')
  assert.equal(answer.cursor, '1-1')
  const rest = collect(answer)
  await settle()
  const two = stream(asked[1].init.signal)
  asked[1].resolve(two.response)
  two.write(START + END)
  await clock.move(10)
  assert.deepEqual(await rest, ['end'])
  assert.equal(answer.cursor, '1-3')
})

test('options that make no sense are refused at once', () => {
  assert.throws(() => new Tailrace({ url: 'node' }), { code: 'usage', retryable: false })
  assert.throws(() => new Tailrace({ url: 'http://node', transport: 'pigeon' }), { code: 'usage' })
  assert.throws(() => new Tailrace({ url: 'http://node' }).attach('gen_a', 'five'), { code: 'cursor_invalid' })
})

/** The AbortController of React Native: its signals have neither `reason` nor `throwIfAborted`. */
const ModernController = AbortController
class OldController {
  constructor() {
    const { signal } = (this.inner = new ModernController())
    Object.defineProperty(signal, 'reason', { value: undefined })
    Object.defineProperty(signal, 'throwIfAborted', { value: undefined })
    this.signal = signal
  }
  abort() {
    this.inner.abort()
  }
}

test('signals without a reason are enough, as those of React Native', async (context) => {
  globalThis.AbortController = OldController
  context.after(() => { globalThis.AbortController = ModernController })
  const { clock, asked, options } = network()
  const caller = new OldController()
  const answer = new Tailrace(options).attach('gen_a', undefined, { signal: caller.signal })
  const reading = collect(answer)
  await settle()
  const first = stream(asked[0].init.signal, { 'x-heartbeat-s': '1' })
  asked[0].resolve(first.response)
  await settle()
  first.write(START)
  await clock.move(5_000) // the connection is silent, so there is a second one
  const second = stream(asked[1].init.signal)
  assert.match(asked[1].url, /last_event_id=1-1/)
  asked[1].resolve(second.response)
  await settle()
  caller.abort()
  await assert.rejects(reading, { code: 'aborted' })
})
