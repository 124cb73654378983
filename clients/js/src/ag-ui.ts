/**
 * `tailrace/ag-ui`: a `fetch` for the official `HttpAgent` of AG-UI, under which a broken run is resumed.
 *
 *   new HttpAgent({ url: 'https://…/ag-ui/demo', fetch: resumingFetch() })
 *
 * A run is named by its thread and its `runId`, so a repeat of the request is the same run. After a break
 * the rest is asked for, at any node, by the number of the last event; the agent sees one whole stream.
 */

import { systemClock, type Clock } from './environment.js'
import { asError, broken, TailraceError } from './errors.js'
import { isPassing, parseData, replay } from './replay.js'
import { Waker } from './waker.js'

export interface ResumingFetchOptions {
  fetch?: typeof fetch
  clock?: Clock
  random?: () => number
  /** Give up after so long without any connection, ms. Default 120,000. */
  giveUpMs?: number
}

/** `fetch` as `HttpAgent` calls it. */
export type AgentFetch = (url: string, init: RequestInit) => Promise<Response>

export function resumingFetch(options: ResumingFetchOptions = {}): AgentFetch {
  const clock = options.clock ?? systemClock
  const plain: AgentFetch = options.fetch ?? ((url, init) => fetch(url, init))
  const waker = new Waker(clock)

  return async (url, init) => {
    if (!isRun(init)) return plain(url, init)
    const { signal } = init
    return new Promise<Response>((resolve, reject) => {
      const stopper = new AbortController()
      if (signal?.aborted) stopper.abort(signal.reason)
      signal?.addEventListener('abort', () => stopper.abort(signal.reason))
      const run = new Run(url, init, resolve, () => stopper.abort(broken('The reader has left.')))
      replay({
        clock, waker, signal: stopper.signal, random: options.random ?? Math.random, giveUpMs: options.giveUpMs ?? 120_000,
        open: async (stop) => {
          const response = await run.request(plain, stop).catch((cause) => { throw asError(cause) })
          if (isPassing(response.status)) throw broken(`The status is ${response.status}.`)
          return run.open(response)
        },
        take: (data) => run.take(data),
        isDone: () => run.isDone,
      }).then(() => run.end(), (error) => {
        reject(error)
        run.fail(error)
      })
    })
  }
}

function isRun(init: RequestInit): boolean {
  return init?.method?.toUpperCase() === 'POST' && typeof init.body === 'string' && 'runId' in (parseOrEmpty(init.body))
}

function parseOrEmpty(body: string): object {
  try {
    return Object(JSON.parse(body))
  } catch {
    return {}
  }
}

/** One run, and the one response that the agent sees. */
class Run {
  isDone = false
  private generation: string | null = null
  /** The number of events that were passed on. Events of a run are numbered from 0. */
  private passed = 0
  /** The number of the next event of the present connection. */
  private next = 0
  private controller?: ReadableStreamDefaultController<Uint8Array>

  constructor(
    private readonly url: string, private readonly init: RequestInit,
    private readonly resolve: (response: Response) => void, private readonly leave: () => void,
  ) {}

  request(plain: AgentFetch, signal: AbortSignal): Promise<Response> {
    const { url, init } = this
    this.next = 0
    if (!this.generation) return plain(url, { ...init, signal })
    const headers = new Headers(init.headers)
    headers.delete('content-type')
    headers.set('accept', 'text/event-stream')
    if (this.passed) headers.set('last-event-id', String(this.passed - 1))
    this.next = this.passed
    const base = new URL(url, globalThis.location?.href)
    base.pathname = `${base.pathname.replace(/\/$/, '')}/runs/${this.generation}/stream`
    return plain(base.href, { ...init, method: 'GET', body: undefined, headers, signal })
  }

  open(response: Response): Response | undefined {
    const isStream = response.ok && (response.headers.get('content-type') ?? '').includes('text/event-stream')
    if (!isStream && this.controller) {
      if (response.status === 204) return undefined
      throw new TailraceError('not_resumed', `The rest of the run was refused with ${response.status}.`, { retryable: false })
    }
    if (!isStream) { // a refusal goes to the agent as it is
      this.isDone = true
      this.resolve(response)
      return undefined
    }
    this.generation ??= response.headers.get('x-generation-id')
    if (this.controller) return response
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => { this.controller = controller },
      cancel: () => { this.isDone = true; this.leave() },
    })
    this.resolve(new Response(body, { status: response.status, headers: response.headers }))
    return response
  }

  take(data: string): boolean {
    if (this.isDone) return false
    const { type } = parseData(data)
    const number = this.next++
    if (number < this.passed) return false
    this.passed = number + 1
    this.controller!.enqueue(new TextEncoder().encode(`data: ${data}\n\n`))
    this.isDone = type === 'RUN_FINISHED' || type === 'RUN_ERROR'
    return true
  }

  end(): void {
    try { this.controller?.close() } catch { /* the reader has left */ }
  }

  fail(error: unknown): void {
    this.isDone = true
    try { this.controller?.error(error) } catch { /* the reader has left */ }
  }
}
