/**
 * `tailrace/batch`: many requests in the background. An entry of its own, so that the core stays small.
 *
 *   const batch = await new TailraceBatches({ url, token }).create([{ prompt: 'one' }, { prompt: 'two' }])
 *   for await (const line of batch.lines()) console.log(line.customId, line.body)
 */

import { BackOff } from './backoff.js'
import { Credentials, baseOf, systemClock, type Clock, type Environment, type TokenSource } from './environment.js'
import { TailraceError, asError, broken } from './errors.js'
import { START, readEvent, type TailraceEvent } from './events.js'
import { request, requestJson } from './http.js'
import { randomKey } from './keys.js'
import { Reading } from './reading.js'
import { pause, repeat, type Repeater } from './repeat.js'
import { poll } from './transports/poll.js'
import { Waker } from './waker.js'

export interface BatchesOptions {
  /** Of the server, with or without `/v1`. */
  url: string
  token?: TokenSource
  fetch?: typeof fetch
  clock?: Clock
  random?: () => number
  /** The longest wait for the head of an answer, ms. Default 8,000. */
  openTimeoutMs?: number
  /** Give up after so long without any answer, ms. Default 600,000. */
  giveUpMs?: number
}

export interface BatchOptions {
  /** Of each request. Default `/v1/generations`. */
  endpoint?: '/v1/generations' | '/v1/chat/completions' | '/v1/responses'
  /** The longest time for the whole batch: `24h`, or a number of s, m, h or d. */
  window?: string
  metadata?: Record<string, string>
  /** Two calls with the same key are one batch. Default: a random key. */
  idempotencyKey?: string
  signal?: AbortSignal
}

/** One line that is done. `error` is null for a line that succeeded. */
export interface BatchLine {
  customId: string
  statusCode: number | undefined
  /** The answer that the endpoint itself would have given. */
  body: any
  error: { code: string; message: string } | null
}

/** The batch as the server describes it: docs/batches.md. */
export interface BatchState {
  id: string
  status: string
  request_counts: { total: number; completed: number; failed: number }
  output_file_id?: string | null
  error_file_id?: string | null
  [member: string]: unknown
}

/** Request bodies; an object also names each line. */
export type BatchRequests = object[] | Record<string, object>

const LINES_MAX = 50_000
/** A stalled connection is found after this and `openTimeoutMs`. */
const POLL_WAIT_S = 5

export class TailraceBatches {
  private readonly repeater: Repeater

  constructor(options: BatchesOptions) {
    const clock = options.clock ?? systemClock
    const env: Environment = {
      url: baseOf(options.url),
      clock,
      random: options.random ?? Math.random,
      fetch: options.fetch ?? ((...args) => fetch(...args)),
      WebSocket: undefined,
      credentials: new Credentials(options.token),
      openMs: options.openTimeoutMs ?? 8_000,
    }
    this.repeater = { env, waker: new Waker(clock), giveUpMs: options.giveUpMs ?? 600_000 }
  }

  /** Upload the requests and start the batch. A retry never starts a second batch. */
  async create(requests: BatchRequests, options: BatchOptions = {}): Promise<Batch> {
    const { endpoint = '/v1/generations', window = '24h', metadata, signal } = options
    const lines = linesOf(requests, endpoint)
    const { env } = this.repeater
    const file = await repeat(this.repeater, () => this.upload(lines, signal), signal)
    const body = { input_file_id: file.id, endpoint, completion_window: window, metadata }
    const headers = { 'idempotency-key': options.idempotencyKey ?? randomKey() }
    const start = () => requestJson<BatchState>(env, '/v1/batches', { body, headers, signal })
    const created = await repeat(this.repeater, start, signal)
    return this.attach(created.id, { signal })
  }

  /** A batch that was started anywhere. */
  attach(id: string, { signal }: { signal?: AbortSignal } = {}): Batch {
    return new Batch(this.repeater, id, signal)
  }

  private async upload(lines: string, signal?: AbortSignal): Promise<{ id: string }> {
    const form = new FormData()
    form.append('purpose', 'batch')
    form.append('file', new Blob([lines], { type: 'application/jsonl' }), 'requests.jsonl')
    return requestJson(this.repeater.env, '/v1/files', { method: 'POST', form, signal })
  }
}

/** One batch. It runs on the server, also when nobody waits for it. */
export class Batch {
  constructor(
    private readonly repeater: Repeater,
    /** `batches.attach(id)` continues anywhere. */
    readonly id: string,
    private readonly signal?: AbortSignal,
  ) {}

  /** `progress`, `data` (a line is done) and `end`, each once. */
  async *events(): AsyncGenerator<TailraceEvent, void, undefined> {
    const reading = new Reading(START)
    while (!reading.isDone) {
      const polled = await this.call(() => poll(this.repeater.env, this.asked(), reading.cursor, POLL_WAIT_S))
      for (const members of polled.events) {
        const event = readEvent(members)
        if (event && reading.accept(event)) yield event
      }
      if (polled.done) return
    }
  }

  /** Wait for the end. A batch that failed, expired or was cancelled is no exception. */
  async result(): Promise<BatchState> {
    try {
      for await (const event of this.events()) void event
    } catch (error) {
      if (asError(error).code !== 'expired') throw error // the events are gone sooner than the batch
    }
    return this.snapshot()
  }

  /** Wait for the end, then the lines that succeeded; with `errors` the lines that failed. */
  async *lines({ errors = false }: { errors?: boolean } = {}): AsyncGenerator<BatchLine, void, undefined> {
    const batch = await this.result()
    const file = errors ? batch.error_file_id : batch.output_file_id
    if (!file) return
    const path = `/v1/files/${encodeURIComponent(file)}/content`
    const download = { count: 0, rest: new Uint8Array() }
    const backOff = new BackOff(this.repeater.env.random)
    for (;;) {
      const body = await this.call(() => this.open(path, download.count))
      if (!body) return
      const reader = body.getReader()
      try {
        for (;;) {
          const { done, value } = await this.piece(reader)
          if (done) return
          backOff.progress()
          yield* feed(download, value)
        }
      } catch (cause) {
        await pause(this.repeater, backOff, cause, this.signal)
      } finally {
        void reader.cancel().catch(() => {})
      }
    }
  }

  snapshot(): Promise<BatchState> {
    return this.call(() => requestJson(this.repeater.env, this.path, { signal: this.signal }))
  }

  /** End the batch, on any node. Lines that are done stay. May be repeated. */
  cancel(): Promise<BatchState> {
    const asked = { method: 'POST', signal: this.signal }
    return this.call(() => requestJson(this.repeater.env, `${this.path}/cancel`, asked))
  }

  private call<T>(send: () => Promise<T>): Promise<T> {
    return repeat(this.repeater, send, this.signal)
  }

  private get path(): string {
    return `/v1/batches/${encodeURIComponent(this.id)}`
  }

  private asked() {
    const { id, path } = this
    const ignore = () => {}
    return {
      id, path, cursor: START, signal: this.signal ?? new AbortController().signal,
      event: ignore, alive: ignore, over: ignore, heartbeatS: () => POLL_WAIT_S,
    }
  }

  /** One piece of a download; a download that stalls is broken. */
  private async piece(reader: ReadableStreamDefaultReader<Uint8Array>) {
    const { clock, openMs } = this.repeater.env
    let timer: unknown
    const late = new Promise<never>((_, reject) => {
      timer = clock.setTimeout(() => reject(broken('The download stalled.')), openMs)
    })
    try {
      return await Promise.race([reader.read(), late])
    } finally {
      clock.clearTimeout(timer)
    }
  }

  /** The rest of a file from the byte `start` on; undefined: there is no rest. */
  private async open(path: string, start: number): Promise<ReadableStream<Uint8Array> | undefined> {
    const headers: Record<string, string> = start ? { range: `bytes=${start}-` } : {}
    try {
      const response = await request(this.repeater.env, path, { accept: 'application/octet-stream', headers, signal: this.signal })
      if (start && response.status !== 206) throw broken('A proxy answered with the whole file instead of its rest.')
      return response.body ?? undefined
    } catch (error) {
      if (start && asError(error).status === 416) return undefined
      throw error
    }
  }
}

/** The bytes that were taken so far, and those of an unfinished line. */
interface Download {
  count: number
  rest: Uint8Array
}

function feed(download: Download, data: Uint8Array): BatchLine[] {
  const lines: BatchLine[] = []
  download.count += data.length
  let start = 0
  for (let end = data.indexOf(10); end >= 0; end = data.indexOf(10, start)) {
    const raw = joined(download.rest, data.subarray(start, end))
    download.rest = new Uint8Array()
    start = end + 1
    if (raw.length) lines.push(readLine(new TextDecoder().decode(raw)))
  }
  download.rest = joined(download.rest, data.subarray(start))
  return lines
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  const all = new Uint8Array(first.length + second.length)
  all.set(first)
  all.set(second, first.length)
  return all
}

function readLine(text: string): BatchLine {
  const { custom_id, response, error } = JSON.parse(text)
  return { customId: custom_id, statusCode: response?.status_code, body: response?.body, error }
}

/** The input file, JSON Lines. */
function linesOf(requests: BatchRequests, url: string): string {
  const named = Array.isArray(requests) ? requests.map((body, n) => [String(n), body] as const) : Object.entries(requests)
  if (!named.length || named.length > LINES_MAX) {
    throw new TailraceError('usage', `A batch has 1 to ${LINES_MAX} requests, got ${named.length}.`, { retryable: false })
  }
  return named.map(([custom_id, body]) => JSON.stringify({ custom_id, method: 'POST', url, body }) + '\n').join('')
}
