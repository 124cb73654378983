// The package `tailrace`, told by lines of JSON on stdin what to do; it says what came of it.
import { createInterface } from 'node:readline'
import { Tailrace } from '../../clients/js/dist/index.js'

// Node.js 20 has no WebSocket; Deno and Bun have one.
const WebSocket = globalThis.WebSocket ?? (await import('ws')).WebSocket
const say = (said) => process.stdout.write(JSON.stringify(said) + '\n')

// The fetch of React Native: the answer is there when it is whole, and it has no `body`.
const withoutStreams = async (input, init) => {
  const { status, headers, ...response } = await fetch(input, init)
    .then(async (answer) => ({ status: answer.status, headers: answer.headers, text: await answer.text() }))
  return { status, headers, ok: status >= 200 && status < 300, body: undefined, text: async () => response.text }
}

/** A clock that is wrong, and jumps when told. Its timers are real. */
class WrongClock {
  constructor({ offset_s = 0, jump_s = 0, after_events, after_retries }) {
    Object.assign(this, { offsetMs: offset_s * 1000, jumpMs: jump_s * 1000, after_events, after_retries, retries: 0 })
  }
  now = () => Date.now() + this.offsetMs
  setTimeout = (callback, ms) => setTimeout(callback, ms)
  clearTimeout = (timer) => clearTimeout(timer)
  passed(name, count) {
    if (this[name] === count) this.offsetMs += this.jumpMs
  }
}

const clientOf = ({ url, transport, jitter, options, tokens, clock, hasWebSocket = true, hasStreams = true }) =>
  new Tailrace({
    url,
    token: tokens ? () => tokens.find(({ until }) => until > Date.now() / 1000 + 1).token : process.env.API_KEY || null,
    transport,
    ...(clock ? { clock, onRetry: () => clock.passed('after_retries', (clock.retries += 1)) } : {}),
    ...(hasWebSocket ? { WebSocket } : {}),
    ...(hasStreams ? {} : { fetch: withoutStreams }),
    ...(jitter === undefined ? {} : { random: () => jitter }),
    ...options,
  })

const told = ({ name, code, message, retryable, status }) => ({ name, code, message, retryable, status })

/** One reading: generate or attach, iterate, take the result. */
async function read(client, { body, id, cursor, upto, cancelAt, clock }) {
  const events = []
  let answer
  try {
    answer = id ? client.attach(id, cursor) : await client.generate(body)
    for await (const event of answer) {
      events.push(event)
      clock?.passed('after_events', events.length)
      if (events.length === cancelAt) await answer.cancel()
      if (events.length === upto) break
    }
    const left = answer.cursor
    const result = await answer.result()
    return { id: answer.id, events, left, result, cursor: answer.cursor }
  } catch (error) {
    return { id: answer?.id, events, error: told(error) }
  }
}

const ops = {
  /** Several readings at once, each with a client of its own. */
  each: async ({ runs }) =>
    Promise.all(
      runs.map(async (run) => {
        if (run.clock) run.clock = new WrongClock(run.clock)
        const client = clientOf(run)
        const outcome = await read(client, run)
        client.close()
        return outcome
      }),
    ),
  /** Several readings at once, with one client. */
  shared: async ({ client: asked, runs }) => {
    const client = clientOf(asked)
    const outcomes = await Promise.all(runs.map((run) => read(client, run)))
    client.close()
    return outcomes
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  const { op, ...rest } = JSON.parse(line)
  try {
    say({ value: await ops[op](rest) })
  } catch (error) {
    say({ error: told(error) })
  }
}
