/**
 * `tailrace/openai`: a `fetch` for the official SDK, under which a broken chat completion is resumed.
 *
 *   new OpenAI({ baseURL, apiKey, fetch: resumingFetch() })
 *
 * Every request that starts something gets an idempotency key, so a repeat is the same answer. After a
 * break the same request is repeated, at any node, and the chunks that were passed are left out.
 */

import { systemClock, type Clock } from './environment.js'
import { broken, asError } from './errors.js'
import { compareIds, isEventId, START } from './events.js'
import { randomKey } from './keys.js'
import { isPassing, parseData, replay } from './replay.js'
import { Waker } from './waker.js'

export interface ResumingFetchOptions {
  fetch?: typeof fetch
  clock?: Clock
  random?: () => number
  /** Give up after so long without any connection, ms. Default 120,000. */
  giveUpMs?: number
}

export function resumingFetch(options: ResumingFetchOptions = {}): typeof fetch {
  const clock = options.clock ?? systemClock
  const random = options.random ?? Math.random
  const giveUpMs = options.giveUpMs ?? 120_000
  const plain: typeof fetch = options.fetch ?? ((...args) => fetch(...args))
  const waker = new Waker(clock)

  return async (input, init) => {
    if (!isChat(input, init)) return plain(input, init)
    const headers = new Headers(init!.headers)
    if (!headers.has('idempotency-key')) headers.set('idempotency-key', randomKey())
    const { signal } = init!
    const send = (stop: AbortSignal) => plain(input, { ...init, headers, signal: stop })
    return new Promise<Response>((resolve, reject) => {
      const stopper = new AbortController()
      if (signal?.aborted) stopper.abort(signal.reason)
      signal?.addEventListener('abort', () => stopper.abort(signal.reason))
      const sink = new Sink(resolve, () => stopper.abort(broken('The reader has left.')))
      replay({
        clock, waker, random, giveUpMs, signal: stopper.signal,
        open: async (stop) => {
          const response = await send(stop).catch((cause) => { throw asError(cause) })
          if (isPassing(response.status)) throw broken(`The status is ${response.status}.`)
          const isStream = (response.headers.get('content-type') ?? '').includes('text/event-stream')
          if (isStream) return sink.open(response), response
          if (sink.isOpen) throw broken('The repeat of the request got no stream.')
          sink.pass(response)
          return undefined
        },
        take: (data) => sink.take(data),
        isDone: () => sink.isDone,
      }).then(() => sink.end(), (error) => {
        reject(error)
        sink.fail(error)
      })
    })
  }
}

function isChat(input: unknown, init?: RequestInit): boolean {
  const url = typeof input === 'string' ? input : String((input as any)?.url ?? input)
  return (
    init?.method?.toUpperCase() === 'POST' && typeof init.body === 'string' &&
    new URL(url, 'http://relative').pathname.endsWith('/chat/completions')
  )
}

/** The one response that the SDK sees. */
class Sink {
  isOpen = false
  isDone = false
  private last = START
  /** How many chunks of the event `last` were passed; an event may have several. */
  private passed = 0
  private seen = 0
  private seenId = START
  private controller!: ReadableStreamDefaultController<Uint8Array>

  constructor(private readonly resolve: (response: Response) => void, private readonly leave: () => void) {}

  /** A connection begins at the first chunk. */
  open(response: Response): void {
    this.seen = 0
    this.seenId = START
    if (this.isOpen) return
    this.isOpen = true
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => { this.controller = controller },
      cancel: () => { this.isDone = true; this.leave() },
    })
    this.resolve(new Response(body, { status: response.status, headers: response.headers }))
  }

  /** An answer that is no stream goes to the SDK as it is. */
  pass(response: Response): void {
    this.isDone = true
    this.resolve(response)
  }

  take(data: string): boolean {
    if (this.isDone) return false
    const chunk = data === '[DONE]' ? undefined : parseData(data)
    if (chunk && isEventId(chunk.event_id) && !this.isNew(chunk.event_id)) return false
    this.controller.enqueue(new TextEncoder().encode(`data: ${data}\n\n`))
    this.isDone = data === '[DONE]'
    return true
  }

  private isNew(id: string): boolean {
    this.seen = id === this.seenId ? this.seen + 1 : 1
    this.seenId = id
    const order = compareIds(id, this.last)
    if (order < 0 || (order === 0 && this.seen <= this.passed)) return false
    this.last = id
    this.passed = this.seen
    return true
  }

  end(): void {
    if (this.isOpen && this.controller.desiredSize !== null) {
      try { this.controller.close() } catch { /* the reader has left */ }
    }
  }

  fail(error: unknown): void {
    this.isDone = true
    if (this.isOpen) {
      try { this.controller.error(error) } catch { /* the reader has left */ }
    }
  }
}
