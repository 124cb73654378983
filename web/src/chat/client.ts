/**
 * The client of this page: the package `tailrace`, with a transport that can be changed while answers are read
 * and that tells the bus about connections and events.
 */

import type { AudioOptions, TailraceAudio } from 'tailrace-source/audio.js'
import { Tailrace, type ReadRequest, type Transport, type TransportName } from 'tailrace'
import type { Environment } from 'tailrace-source/environment.js'
import { TailraceError } from 'tailrace'
import { broken } from 'tailrace-source/errors.js'
import { compareIds, START } from 'tailrace-source/events.js'
import { requestJson } from 'tailrace-source/http.js'
import { repeat } from 'tailrace-source/repeat.js'
import { WebSocketTransport } from 'tailrace-source/transports/websocket.js'
import { bus } from './bus.js'
import { overHttp } from './http-readings.js'
import { ownerTag, type Keys } from './store/keys.js'

export const TRANSPORTS: TransportName[] = ['websocket', 'sse', 'ndjson', 'poll']
/** Tried in this order until one of them lives, unless the user has chosen one. */
const AUTO: TransportName[] = ['websocket', 'sse', 'poll']

/** A page may be open for days: a prompt waits as long as it is. */
const WAIT_MS = Number.MAX_SAFE_INTEGER

export class PageClient extends Tailrace {
  private readonly switching: SwitchedTransport

  constructor(private readonly keys: Keys) {
    const switching = new SwitchedTransport(() => ownerTag(keys.current))
    super({
      url: location.origin,
      token: ({ isFresh }) => keys.token(isFresh),
      transport: switching,
      giveUpMs: WAIT_MS,
    })
    this.switching = switching
    switching.env = this.env
  }

  /** The transport in use; `auto` is for a user who has not chosen. */
  choose(name: TransportName | 'auto'): void {
    this.switching.choose(name)
    setTimeout(() => this.reconnect(), 20) // without the pause that follows a broken connection
  }

  /** Close the connections of all readings, as a network would; each comes back with its cursor. */
  cut(): void {
    this.switching.cut()
  }

  /** One request with the key that is there, for what may fail without harm. */
  once(path: string, options: RequestInit = {}): Promise<Response> {
    const headers = new Headers(options.headers)
    if (this.keys.current) headers.set('authorization', `Bearer ${this.keys.current}`)
    return fetch(path, { ...options, headers })
  }

  /** A client for recordings; its class is loaded with the first one. Beside HTTP readings it sends over HTTP, too. */
  audio(Audio: typeof TailraceAudio, options: Partial<AudioOptions> = {}): TailraceAudio {
    return new Audio({
      url: location.origin,
      token: ({ isFresh }) => this.keys.token(isFresh),
      transport: this.transportInUse === 'websocket' ? 'auto' : 'http',
      giveUpMs: WAIT_MS,
      ...options,
    })
  }

  get transportInUse(): TransportName {
    return this.switching.inUse
  }

  /** A request that may be repeated, until it is answered. Throws TailraceError that waiting cannot cure. */
  async json<T>(path: string, { method, signal }: { method?: string; signal?: AbortSignal } = {}): Promise<T> {
    const { env, waker } = this
    const send = () => requestJson<T>(env, path, { method, signal })
    return this.signedIn(() => repeat({ env, waker, giveUpMs: WAIT_MS }, send, signal))
  }

  /** Ask for another key as long as the server refuses the one that is there. */
  async signedIn<T>(send: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await send()
      } catch (error) {
        if (!(error instanceof TailraceError) || error.code !== 'unauthorized') throw error
      }
    }
  }

  /** Fetch something that is not JSON, for example the bytes of a file. */
  async fetch(path: string, options: RequestInit = {}): Promise<Response> {
    for (;;) {
      const key = this.keys.current
      const headers = new Headers(options.headers)
      if (key) headers.set('authorization', `Bearer ${key}`)
      const response = await fetch(path, { ...options, headers })
      if (response.status !== 401) return response
      if (this.keys.current === key) await this.keys.token(true)
    }
  }
}

class SwitchedTransport implements Transport {
  /** The package asks for a name; this transport stands for all four. */
  readonly name = 'sse'
  env!: Environment
  private made = new Map<string, Transport>()
  private names: TransportName[] = AUTO
  private readers = new Set<AbortController>()
  private connections = new Map<string, number>()
  private cursors = new Map<string, string>()

  constructor(private readonly owner: () => string) {}

  get inUse(): TransportName {
    return this.names[0]
  }

  choose(name: TransportName | 'auto'): void {
    this.names = name === 'auto' ? AUTO : [name]
    // Each reading comes back with its cursor, over the transport that was chosen.
    for (const each of this.readers) each.abort(switched())
  }

  cut(): void {
    for (const each of this.made.values()) each.close()
    this.made.clear()
    for (const each of this.readers) each.abort(broken('The connection was cut.'))
  }

  async read(asked: ReadRequest): Promise<void> {
    const name = this.inUse
    const reconnects = this.connections.get(asked.id) ?? 0
    this.connections.set(asked.id, reconnects + 1)
    const tell = (state: 'opening' | 'live' | 'lost') =>
      bus.emit('connection', { generation: asked.id, transport: name, state, reconnects })
    const stopper = new AbortController()
    const abort = () => stopper.abort(asked.signal.reason)
    asked.signal.addEventListener('abort', abort, { once: true })
    if (asked.signal.aborted) abort()
    this.readers.add(stopper)
    let isLive = false
    let isOver = false
    tell('opening')
    try {
      await this.transport(name).read({
        ...asked,
        signal: stopper.signal,
        event: (event) => {
          this.tell(asked.id, event)
          isOver ||= event.type === 'end'
          asked.event(event)
        },
        alive: (heartbeatS) => {
          if (!isLive) tell('live')
          isLive = true
          asked.alive(heartbeatS)
        },
        over: () => {
          isOver = true
          asked.over()
        },
      })
    } catch (error) {
      if (!isLive && !asked.signal.aborted && !stopper.signal.aborted) this.turn(name)
      throw stopper.signal.aborted && !asked.signal.aborted ? stopper.signal.reason : error
    } finally {
      this.readers.delete(stopper)
      asked.signal.removeEventListener('abort', abort)
      if (isOver) this.connections.delete(asked.id)
      else if (!asked.signal.aborted) tell('lost')
    }
  }

  close(): void {
    for (const each of this.made.values()) each.close()
  }

  /** Nothing arrived over this transport: the next connection tries the next one. */
  private turn(name: TransportName): void {
    if (this.names.length > 1 && this.names[0] === name) this.names = [...this.names.slice(1), name]
  }

  private tell(generation: string, event: Parameters<ReadRequest['event']>[0]): void {
    const known = this.cursors.get(generation) ?? START
    const isNew = event.id === START || compareIds(event.id, known) > 0
    if (isNew) this.cursors.set(generation, event.id)
    const text = event.type === 'token' ? event.text : ''
    bus.emit('event', { generation, id: event.id, type: event.type, text, repeated: !isNew, event })
  }

  private transport(name: TransportName): Transport {
    const key = `${name} ${this.owner()}`
    const found = this.made.get(key)
    if (found) return found
    const made = name === 'websocket' ? new WebSocketTransport(this.env) : overHttp(name, this.owner(), this.env)
    this.made.set(key, made)
    return made
  }
}

const switched = () => new TailraceError('switched', 'The transport was changed.', { retryable: true })
