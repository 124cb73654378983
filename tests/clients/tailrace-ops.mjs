// What the programs of the scenarios do with the package `tailrace`: tailrace.mjs in Node.js, tailrace-page.mjs in a browser.

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

export const told = ({ name, code, message, retryable, status }) => ({ name, code, message, retryable, status })

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

/** Sound that both sides of a test know: byte by byte, from the seed. */
const soundOf = (seed, length) => Uint8Array.from({ length }, (_, at) => (at * 7 + (at >> 8) * 13 + seed) & 255)

/** `world`: the class `Tailrace`, the key of the deployment or null, and a WebSocket if there is one. */
export function opsOf(world) {
  const clientOf = ({ url, transport, jitter, options, tokens, clock, hasWebSocket = true, hasStreams = true }) =>
    new world.Tailrace({
      url,
      token: tokens ? () => tokens.find(({ until }) => until > Date.now() / 1000 + 1).token : world.key,
      transport,
      ...(clock ? { clock, onRetry: () => clock.passed('after_retries', (clock.retries += 1)) } : {}),
      ...(hasWebSocket ? { WebSocket: world.WebSocket } : {}),
      ...(hasStreams ? {} : { fetch: withoutStreams }),
      ...(jitter === undefined ? {} : { random: () => jitter }),
      ...options,
    })

  return {
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
    /** Several recordings at once, each with a client of its own; `pieceBytes` are written at a time. */
    record: async ({ runs }) =>
      Promise.all(
        runs.map(async ({ url, transport, seed, bytes, pieceBytes, model }) => {
          const { TailraceAudio, WebSocket } = world
          const options = { url, token: world.key, random: () => 0.02 }
          try {
            const recording = await new TailraceAudio({ ...options, transport, WebSocket }).start({ model })
            const sound = soundOf(seed, bytes)
            for (let at = 0; at < bytes; at += pieceBytes) await recording.write(sound.subarray(at, at + pieceBytes))
            await recording.finish()
            const client = new world.Tailrace({ ...options, transport: 'poll' })
            const { text, status } = await client.attach(recording.id).result()
            return { id: recording.id, text, status, buffered: recording.bufferedBytes }
          } catch (error) {
            return { error: told(error) }
          }
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
}
