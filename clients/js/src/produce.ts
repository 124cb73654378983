/**
 * `tailrace/produce`: write the answer of a generation from a worker of your own (docs/producers.md).
 *
 *   const log = await new TailraceProducers({ url, token }).produce({ model: 'report', prompt: 'Write it' })
 *   await log.progress('reading', 3, 50)
 *   await log.agent('writer').token('All is well.')
 *   await log.end()
 *
 * Each event gets its number when it is first sent, and keeps it: a repeated append writes nothing
 * twice. Events that the server has lost are sent again. The lease is renewed meanwhile.
 */

import { Credentials, baseOf, systemClock, type Clock, type Environment, type TokenSource } from './environment.js'
import { TailraceError, asError } from './errors.js'
import { requestJson } from './http.js'
import { randomKey } from './keys.js'
import { repeat } from './repeat.js'
import { Waker } from './waker.js'

export interface ProducersOptions {
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

/** The members of a start, docs/producers.md, "Begin". */
export interface ProduceOptions {
  /** Any name. */
  model?: string
  prompt?: string
  messages?: object[]
  session?: string
  metadata?: Record<string, unknown>
  on_disconnect?: 'continue' | 'cancel' | number
  deadline_s?: number
  webhook?: { url: string; secret: string }
  /** The generation fails if the producer is silent for longer, s. */
  leaseS?: number
  /** Two calls with the same key are one generation. Default: a random key. */
  idempotencyKey?: string
}

interface Begun {
  id: string
  attempt: number
  producer_token: string
  next_seq: number
  lease_s: number
}
interface Appended {
  status: string
  last_event_id: string
  next_seq: number
}
type Members = Record<string, unknown>
interface Sized {
  event: Members
  bytes: number
}

const EVENTS_MAX = 500
const BYTES_MAX = 524_288
/** Acknowledged, and kept for a server that lost them. */
const KEPT_BYTES = 2_097_152
const WAITING_BYTES_MAX = 1_048_576
const JOINED_CHARACTERS_MAX = 65_536
const GATHER_MS = 20

export class TailraceProducers {
  private readonly env: Environment
  private readonly giveUpMs: number

  constructor(options: ProducersOptions) {
    this.env = {
      url: baseOf(options.url),
      clock: options.clock ?? systemClock,
      random: options.random ?? Math.random,
      fetch: options.fetch ?? ((...args) => fetch(...args)),
      WebSocket: undefined,
      credentials: new Credentials(options.token),
      openMs: options.openTimeoutMs ?? 8_000,
    }
    this.giveUpMs = options.giveUpMs ?? 600_000
  }

  /** Create a generation and begin it. A retry never starts a second one. */
  async produce(options: ProduceOptions = {}): Promise<Producer> {
    const { leaseS, idempotencyKey, ...members } = options
    const body = { ...members, producer: leaseS === undefined ? true : { lease_s: leaseS } }
    const headers = { 'idempotency-key': idempotencyKey ?? randomKey() }
    return this.begin('/v1/generations', { body, headers })
  }

  /** Begin the next attempt of a generation whose producer is gone; `reset`: its answer begins anew. */
  takeOver(id: string, { reset = false }: { reset?: boolean } = {}): Promise<Producer> {
    return this.begin(`/v1/generations/${encodeURIComponent(id)}/producer`, { body: { reset } })
  }

  private async begin(path: string, asked: { body: unknown; headers?: Record<string, string> }): Promise<Producer> {
    const send = new Sender(this.env, this.giveUpMs)
    return new Producer(send, await send.call<Begun>(path, asked))
  }
}

/** Repeats a request until a node has answered it. */
class Sender {
  readonly waker: Waker

  constructor(
    readonly env: Environment,
    readonly giveUpMs: number,
  ) {
    this.waker = new Waker(env.clock)
  }

  /** A server without room is asked for as long as one that is away: the lease runs on. */
  call<T>(path: string, asked: { body: unknown; headers?: Record<string, string> }, signal?: AbortSignal): Promise<T> {
    return repeat(this, () => requestJson<T>(this.env, path, { ...asked, signal }), signal, this.giveUpMs)
  }
}

/** The events that a producer may write, in the name of one agent or of none. */
export class Writer {
  constructor(private readonly write: (type: string, members: Members) => Promise<void>, private readonly name = '') {}

  /** Write a piece of the answer. Waits only while much is written that was not sent yet. */
  async token(text: string): Promise<void> {
    if (text) await this.put('token', { text })
  }

  async reasoning(text: string): Promise<void> {
    if (text) await this.put('reasoning', { text })
  }

  progress(stage: string, current: number, total: number): Promise<void> {
    return this.put('progress', { stage, current, total })
  }

  /** Write any JSON value. */
  data(name: string, value: unknown): Promise<void> {
    return this.put('data', { name, value: value ?? null })
  }

  private put(type: string, members: Members): Promise<void> {
    return this.write(type, this.name ? { ...members, agent: this.name } : members)
  }
}

/** A generation whose answer the caller writes, until `end`. */
export class Producer extends Writer {
  readonly id: string
  readonly attempt: number
  /** Of the generation, as last heard. */
  status = 'running'
  lastEventId: string
  private seq: number
  private waiting: Sized[] = []
  private sent: Sized[] = []
  private kept: Sized[] = []
  private waitingBytes = 0
  private hasEnd = false
  private error: TailraceError | undefined
  private changed: (() => void)[] = []
  private wake: () => void = () => {}
  private readonly stop = new AbortController()
  private readonly headers: Record<string, string>
  private readonly leaseMs: number

  constructor(private readonly sender: Sender, begun: Begun) {
    super((type, members) => this.take(type, members))
    this.id = begun.id
    this.attempt = begun.attempt
    this.seq = begun.next_seq
    this.lastEventId = `${begun.attempt}-${begun.next_seq - 1}`
    this.leaseMs = begun.lease_s * 1000
    this.headers = { 'x-producer-token': begun.producer_token }
    void this.run()
  }

  /** A writer whose events carry the name of an agent. */
  agent(name: string): Writer {
    return new Writer((type, members) => this.take(type, members), name)
  }

  /** End the generation, and wait until the log has everything. */
  async end(members: { status?: 'completed' | 'cancelled' | 'failed'; error?: { code: string; message: string; retryable?: boolean } } = {}): Promise<void> {
    await this.take('end', members)
    await this.flush()
  }

  /** Wait until the log has everything that was written. Throws if others have ended the generation. */
  async flush(): Promise<void> {
    await this.until(() => !this.waiting.length && !this.sent.length)
    if (this.error) throw this.error
  }

  /** Stop sending. The generation goes on until its lease runs out. */
  close(): void {
    this.fail(new TailraceError('usage', 'This producer is closed.', { retryable: false }))
    this.stop.abort()
  }

  private async take(type: string, members: Members): Promise<void> {
    if (this.error) throw this.error
    if (this.hasEnd) throw new TailraceError('usage', 'The end is written: nothing may follow it.', { retryable: false })
    this.hasEnd = type === 'end'
    const event: Members = { type, ...members }
    const last = this.waiting[this.waiting.length - 1]
    const isJoined = (type === 'token' || type === 'reasoning') && last?.event.type === type && last.event.agent === event.agent
    const text = isJoined ? String(last.event.text) + String(event.text) : ''
    const bytes = sizeOf(isJoined ? event.text : event)
    if (isJoined && text.length <= JOINED_CHARACTERS_MAX) {
      last.event = { ...last.event, text }
      last.bytes += bytes
    } else {
      this.waiting.push({ event, bytes })
    }
    this.waitingBytes += bytes
    this.wake()
    if (this.waitingBytes > WAITING_BYTES_MAX) {
      await this.until(() => this.waitingBytes <= WAITING_BYTES_MAX)
      if (this.error) throw this.error
    }
  }

  private async run(): Promise<void> {
    const { waker } = this.sender
    while (!this.error && !(this.hasEnd && !this.waiting.length && !this.sent.length)) {
      if (!this.waiting.length && !this.sent.length) {
        const cut = new AbortController()
        this.wake = () => cut.abort()
        await waker.sleep(this.leaseMs / 3, cut.signal).catch(() => {})
        if (this.waiting.length) await waker.sleep(GATHER_MS, this.stop.signal).catch(() => {})
      }
      if (!this.error) await this.append()
      for (const tell of this.changed.splice(0)) tell()
    }
  }

  private async append(): Promise<void> {
    if (!this.sent.length) {
      this.sent = takeSome(this.waiting)
      this.waitingBytes -= bytesOf(this.sent)
    }
    const part = takeSome([...this.sent])
    const body = part.length ? { seq: this.seq, events: part.map(({ event }) => event) } : {}
    try {
      const path = `/v1/generations/${encodeURIComponent(this.id)}/events`
      const answer = await this.sender.call<Appended>(path, { body, headers: this.headers }, this.stop.signal)
      this.kept.push(...this.sent.splice(0, part.length))
      this.seq += part.length
      while (bytesOf(this.kept) > KEPT_BYTES) this.kept.shift()
      this.status = answer.status
      this.lastEventId = answer.last_event_id
      const isOwnEnd = this.hasEnd && !this.waiting.length && !this.sent.length
      if (this.status !== 'running' && !isOwnEnd) {
        this.fail(new TailraceError('generation_ended', `This generation is ${this.status}.`, { retryable: false }))
      }
    } catch (cause) {
      this.refuse(asError(cause))
    }
  }

  /** Go back to the number that the server expects, or stop. */
  private refuse(error: TailraceError): void {
    const back = this.seq - Number(error.members?.next_seq)
    if (error.code === 'sequence_gap' && back > 0 && back <= this.kept.length) {
      this.sent.unshift(...this.kept.splice(-back))
      this.seq -= back
      return
    }
    if (error.code === 'generation_ended') this.status = String(error.members?.status ?? this.status)
    this.fail(error)
  }

  private fail(error: TailraceError): void {
    this.error ??= error
    this.wake()
    for (const tell of this.changed.splice(0)) tell()
  }

  private async until(isTrue: () => boolean): Promise<void> {
    while (!this.error && !isTrue()) await new Promise<void>((tell) => this.changed.push(tell))
  }
}

/** Remove the first events that fit into one append. */
function takeSome(from: Sized[]): Sized[] {
  let count = 0
  for (let bytes = 0; count < from.length && count < EVENTS_MAX; count += 1) {
    bytes += from[count].bytes
    if (count && bytes > BYTES_MAX) break
  }
  return from.splice(0, count)
}

const bytesOf = (events: Sized[]): number => events.reduce((sum, { bytes }) => sum + bytes, 0)

function sizeOf(value: unknown): number {
  try {
    return new TextEncoder().encode(JSON.stringify(value)).length
  } catch (cause) {
    throw new TailraceError('usage', `An event must be JSON: ${String(cause)}`, { retryable: false, cause })
  }
}
