/** Server-sent events and NDJSON over fetch: a body that is read line by line. */

import type { Environment } from '../environment.js'
import { TailraceError, asError, broken } from '../errors.js'
import { readEvent } from '../events.js'
import { request } from '../http.js'
import { eventsPath, type ReadRequest, type Transport } from './contract.js'

/** The longest line, characters: an answer may hold a picture, and a proxy may send nonsense. */
const LINE_MAX = 32 * 1024 * 1024

type TakeLine = (line: string) => void

export class StreamTransport implements Transport {
  constructor(readonly name: 'sse' | 'ndjson', private readonly env: Environment) {}

  async read(asked: ReadRequest): Promise<void> {
    const accept = this.name === 'sse' ? 'text/event-stream' : 'application/x-ndjson'
    const { signal } = asked
    const response = await request(this.env, eventsPath(asked, asked.cursor), { accept, signal })
    if (response.status === 204) return asked.over()
    if (!response.body?.getReader) {
      throw new TailraceError('connection', 'No stream of a body here.', { retryable: true })
    }
    asked.alive(response.headers.get('x-heartbeat-s') ?? undefined)
    await readLines(response.body, asked, this.name === 'sse' ? sseLines(asked) : ndjsonLines(asked))
  }

  close(): void {}
}

async function readLines(body: ReadableStream<Uint8Array>, asked: ReadRequest, take: TakeLine): Promise<void> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  let rest = ''
  // Not every fetch ends a body with its signal.
  asked.signal.addEventListener('abort', () => void reader.cancel().catch(() => {}))
  try {
    for (;;) {
      const { value, done } = await reader.read()
      if (done) return // an unfinished line is void
      asked.alive()
      const lines = decoder.decode(value, { stream: true }).split('\n')
      // Only what is new is searched: a long line comes in many pieces.
      lines[0] = rest += lines[0]
      if (rest.length > LINE_MAX) throw broken('A line is too long.')
      rest = lines.pop()!
      for (const line of lines) take(line.endsWith('\r') ? line.slice(0, -1) : line)
    }
  } catch (cause) {
    throw asError(cause)
  } finally {
    reader.cancel().catch(() => {})
  }
}

function parse(text: string): Record<string, unknown> {
  try {
    const { ...members } = JSON.parse(text)
    return members
  } catch (cause) {
    throw broken('A line is not JSON.', cause)
  }
}

const ndjsonLines = (asked: ReadRequest): TakeLine => (line) => {
  const event = line && readEvent(parse(line))
  if (event) asked.event(event)
}

/** The part of the standard's parser that our server needs. A block without its blank line is void. */
function sseLines(asked: ReadRequest): TakeLine {
  let fields: Record<string, string> = {}
  return (line) => {
    if (line === '') {
      const { id, event: type, data } = fields
      fields = {}
      const event = data && type && readEvent({ ...parse(data), type }, id)
      if (event) asked.event(event)
      return
    }
    const at = line.indexOf(':')
    if (at === 0) return // a comment: the heartbeat
    const name = at < 0 ? line : line.slice(0, at)
    const value = at < 0 ? '' : line.slice(line[at + 1] === ' ' ? at + 2 : at + 1)
    fields[name] = name === 'data' && fields.data !== undefined ? `${fields.data}\n${value}` : value
  }
}
