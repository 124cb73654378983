/** The client: starts generations, attaches to them, and holds what all its answers share. */

import { Answer, type AnswerHost } from './answer.js'
import {
  Credentials, baseOf, systemClock,
  type Clock, type Environment, type SocketConstructor, type TokenSource,
} from './environment.js'
import { TailraceError, broken } from './errors.js'
import { START, isEventId } from './events.js'
import { follow } from './follow.js'
import { FOREIGN, requestJson, type Asked } from './http.js'
import { Journal, type CursorStorage } from './journal.js'
import { randomKey } from './keys.js'
import { AUTO, Picker } from './picker.js'
import type { Reading } from './reading.js'
import { repeat } from './repeat.js'
import { Session } from './session.js'
import type { Transport, TransportName } from './transports/contract.js'
import { PollTransport } from './transports/poll.js'
import { StreamTransport } from './transports/stream.js'
import { WebSocketTransport } from './transports/websocket.js'
import { Waker } from './waker.js'

export interface TailraceOptions {
  /** Of the server, with or without `/v1`: `https://answers.example`. */
  url: string
  /** An API key, or a function that returns one; it is called again after a refusal. */
  token?: TokenSource
  /** Default `auto`: WebSocket, else a stream over HTTP, else long poll. */
  transport?: 'auto' | TransportName | Transport
  fetch?: typeof fetch
  WebSocket?: SocketConstructor
  clock?: Clock
  random?: () => number
  /** The longest wait for the head of an answer, ms. Default 8,000. */
  openTimeoutMs?: number
  /** Keeps the cursors of unfinished answers, for `restore` after a reload: `localStorage`. */
  storage?: CursorStorage
  /** Give up after so long without any connection, ms. Default 600,000. */
  giveUpMs?: number
  /** Called with each error after which the client waits and tries again. What it throws ends the call. */
  onRetry?: (error: TailraceError) => void
}

export interface Message { role: string; content: unknown; [member: string]: unknown }

/** The members of docs/protocol.md, "Starting", and these: */
export interface GenerateOptions {
  prompt?: string
  messages?: Message[]
  model?: string
  params?: Record<string, unknown>
  session?: string
  metadata?: Record<string, unknown>
  priority?: 'interactive' | 'batch'
  on_disconnect?: 'continue' | 'cancel' | number
  queue_wait_s?: number
  deadline_s?: number
  webhook?: { url: string; secret?: string }
  /** Two calls with the same key are one generation. Default: a random key, so that a retry is safe. */
  idempotencyKey?: string
  /** Stops reading. It does not cancel. */
  signal?: AbortSignal
}

const NAMES: TransportName[] = ['websocket', 'sse', 'ndjson', 'poll']

export class Tailrace {
  // A subclass may ask for more with them: the chat page does.
  protected readonly env: Environment
  protected readonly waker: Waker
  private readonly picker: Picker
  private readonly isAuto: boolean
  private readonly giveUpMs: number
  private transports = new Map<TransportName, Transport>()
  private host: AnswerHost
  private readonly journal: Journal | undefined

  constructor(options: TailraceOptions) {
    const clock = options.clock ?? systemClock
    const world = globalThis as any
    this.env = {
      url: baseOf(options.url),
      clock,
      random: options.random ?? Math.random,
      fetch: options.fetch ?? ((...args) => world.fetch(...args)),
      WebSocket: options.WebSocket ?? world.WebSocket,
      credentials: new Credentials(options.token),
      openMs: options.openTimeoutMs ?? 8_000,
      onRetry: options.onRetry,
    }
    this.waker = new Waker(clock)
    this.giveUpMs = options.giveUpMs ?? 600_000
    this.journal = options.storage && new Journal(options.storage, clock)
    const given = options.transport ?? 'auto'
    const name = typeof given === 'string' ? given : given.name
    if (typeof given !== 'string') this.transports.set(given.name, given)
    this.isAuto = name === 'auto'
    if (name !== 'auto' && !NAMES.includes(name)) {
      const message = `transport must be auto, ${NAMES.join(', ')}`
      throw new TailraceError('usage', message, { retryable: false })
    }
    const names = name !== 'auto' ? [name] : AUTO.filter((each) => each !== 'websocket' || this.env.WebSocket)
    this.picker = new Picker(names)
    if (name === 'websocket') this.transport(name) // says at once that there is no WebSocket
    this.host = {
      follow: (id, reading, signal, onEvent) => this.follow(id, reading, signal, onEvent),
      snapshot: (id) => this.ask(pathOf(id)),
      cancel: (id) => this.cancel(id),
      note: (id, cursor, isDone) => this.journal?.note(id, cursor, isDone),
    }
  }

  /** Start a generation. Returns when it is accepted; a retry never starts a second one. */
  async generate({ idempotencyKey, signal, ...body }: GenerateOptions): Promise<Answer> {
    const key = idempotencyKey ?? randomKey()
    const accepted = await this.ask<{ id: string }>('/v1/generations', { body, headers: { 'idempotency-key': key }, signal })
    const answer = this.attach(accepted.id, undefined, { signal })
    this.journal?.note(answer.id, START, false)
    return answer
  }

  /** Read a generation from its start, or after an event id that another reader has seen. */
  attach(id: string, cursor?: string | null, { signal }: { signal?: AbortSignal } = {}): Answer {
    if (cursor && !isEventId(cursor)) {
      const message = `A cursor is an event id, for example 1-42; got ${JSON.stringify(cursor)}`
      throw new TailraceError('cursor_invalid', message, { retryable: false })
    }
    return new Answer(this.host, id, cursor || START, signal)
  }

  /** End a generation. May be repeated. */
  cancel(id: string): Promise<{ id: string; status: string }> {
    return this.ask(`${pathOf(id)}/cancel`, { method: 'POST' })
  }

  /** The answers that a page with the same `storage` had not finished, each at its cursor. */
  async restore(): Promise<Answer[]> {
    const open = (await this.journal?.read()) ?? []
    return open.filter(([, cursor]) => isEventId(cursor)).map(([id, cursor]) => this.attach(id, cursor))
  }

  /** The generations of a session, with those that other tabs start. */
  session(name: string, { signal }: { signal?: AbortSignal } = {}): Session {
    const { waker } = this
    const { random } = this.env
    const path = `/v1/sessions/${encodeURIComponent(name)}`
    const list = (_: string, limit?: AbortSignal) => this.ask<any>(path, { signal: limit })
    const attach = (id: string, limit?: AbortSignal) => this.attach(id, undefined, { signal: limit })
    return new Session({ waker, random, list, attach }, name, signal)
  }

  /** Come back now instead of after the pause: for a page that learns that the network is there. */
  reconnect(): void {
    this.waker.now()
  }

  /** Close the sockets. Answers that are being read open new ones. */
  close(): void {
    for (const each of this.transports.values()) each.close()
  }

  private ask<T>(path: string, asked: Omit<Asked, 'accept'> = {}): Promise<T> {
    const { env, waker, giveUpMs } = this
    const send = async () => {
      const found = await requestJson<T>(env, path, asked)
      // Every answer of a node to these requests has one of them.
      if (!(found as any)?.id && !(found as any)?.generations) throw broken(FOREIGN)
      return found
    }
    return repeat({ env, waker, giveUpMs }, send, asked.signal)
  }

  private follow(
    id: string, reading: Reading, signal: AbortSignal, onEvent: Parameters<AnswerHost['follow']>[3],
  ): Promise<void> {
    const { env, picker, waker, giveUpMs, isAuto } = this
    const transport = (name: TransportName) => this.transport(name)
    return follow({ env, picker, waker, transport, reading, id, path: pathOf(id), signal, giveUpMs, isAuto, onEvent })
  }

  private transport(name: TransportName): Transport {
    let found = this.transports.get(name)
    if (!found) {
      found =
        name === 'websocket' ? new WebSocketTransport(this.env)
        : name === 'poll' ? new PollTransport(this.env)
        : new StreamTransport(name, this.env)
      this.transports.set(name, found)
    }
    return found
  }
}

const pathOf = (id: string): string => `/v1/generations/${encodeURIComponent(id)}`
