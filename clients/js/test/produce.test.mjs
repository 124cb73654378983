// A producer against a server in memory that loses answers, events and leases.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TailraceProducers } from '../.build/produce.js'

/** A log that accepts appends as a node does; `plan` of each append: lose, drop (the answer), or nothing. */
class Server {
  log = ['start']
  appends = []
  plan = []
  status = 'running'
  lease = 30

  fetch = async (url, { body, headers }) => {
    const path = new URL(url).pathname
    const asked = body ? JSON.parse(body) : {}
    if (path === '/v1/generations') return this.answer(201, this.begun())
    if (path.endsWith('/producer')) return this.answer(200, this.begun())
    assert.equal(headers['x-producer-token'], '1.a')
    this.appends.push(asked)
    const step = this.plan.shift()
    if (step === 'break') throw new TypeError('the network is gone')
    if (step === 'forget') this.log.length = 2
    if (typeof step === 'string' && step.startsWith('end ')) this.status = step.slice(4)
    if (this.status !== 'running') return this.refuse('generation_ended', { status: this.status })
    const { seq = this.log.length + 1, events = [] } = asked
    if (seq > this.log.length + 1) return this.refuse('sequence_gap', { next_seq: this.log.length + 1 })
    events.forEach((event, at) => {
      const told = JSON.stringify(event)
      if (seq + at <= this.log.length) assert.equal(this.log[seq + at - 1], told, 'a repeat must be the same')
      else this.log.push(told)
    })
    if (events.at(-1)?.type === 'end') this.status = events.at(-1).status ?? 'completed'
    if (step === 'lose') throw new TypeError('the answer is lost')
    return this.answer(200, { status: this.status, last_event_id: `1-${this.log.length}`, next_seq: this.log.length + 1 })
  }

  begun() {
    return { id: 'gen_1', attempt: 1, producer_token: '1.a', next_seq: this.log.length + 1, lease_s: this.lease }
  }

  refuse(code, members) {
    return this.answer(409, { error: { code, message: code, retryable: false, ...members } })
  }

  answer(status, content) {
    return new Response(JSON.stringify(content), { status, headers: { 'content-type': 'application/json' } })
  }

  get text() {
    return this.log.slice(1).map((raw) => JSON.parse(raw).text ?? '').join('')
  }
}

const producers = (server) => new TailraceProducers({ url: 'http://node', fetch: server.fetch, random: () => 0 })

test('an answer is written once, over lost answers and broken connections', async () => {
  const server = new Server()
  server.plan = [undefined, 'lose', 'break', undefined, 'lose']
  const log = await producers(server).produce({ model: 'report' })
  for (const text of ['a', 'b', 'c']) {
    await log.token(text)
    await log.flush()
  }
  await log.agent('writer').token('d')
  await log.end()

  assert.equal(server.text, 'abcd')
  assert.equal(log.status, 'completed')
  assert.equal(JSON.parse(server.log.at(-2)).agent, 'writer')
})

test('events that the server has lost are sent again under their numbers', async () => {
  const server = new Server()
  server.plan = [undefined, undefined, 'forget']
  const log = await producers(server).produce()
  for (const text of ['a', 'b', 'c']) {
    await log.token(text)
    await log.flush()
  }
  await log.end()

  assert.equal(server.text, 'abc')
})

test('an end by others stops the producer with its status', async () => {
  const server = new Server()
  server.plan = ['end cancelled']
  const log = await producers(server).produce()
  await log.token('a')
  await assert.rejects(log.flush(), { code: 'generation_ended' })
  await assert.rejects(log.token('b'), { code: 'generation_ended' })

  assert.equal(log.status, 'cancelled')
})

test('texts of one agent are joined before they leave, and of two agents are not', async () => {
  const server = new Server()
  const log = await producers(server).produce()
  await Promise.all([log.token('a'), log.token('b'), log.agent('x').token('c'), log.agent('x').reasoning('d')])
  await log.end()

  assert.deepEqual(server.log.slice(1, 4).map((raw) => JSON.parse(raw)), [
    { type: 'token', text: 'ab' }, { type: 'token', text: 'c', agent: 'x' }, { type: 'reasoning', text: 'd', agent: 'x' },
  ])
})

test('a silent producer renews its lease, and a closed one sends nothing more', async () => {
  const server = new Server()
  server.lease = 0.03
  const log = await producers(server).produce()
  while (server.appends.length < 2) await new Promise((resolve) => setImmediate(resolve))
  log.close()

  assert.deepEqual(server.appends.slice(0, 2), [{}, {}])
  await assert.rejects(log.token('a'), { code: 'usage' })
})

test('what is no JSON is refused where it is written', async () => {
  const log = await producers(new Server()).produce()
  const circle = {}
  circle.self = circle
  await assert.rejects(log.data('x', circle), { code: 'usage' })
  log.close()
})
