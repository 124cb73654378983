/**
 * Follow one generation to its end, over as many connections as that takes.
 *
 * Invariants: returns only when the reading is done; each connection begins at the reading's cursor; a
 * connection is left only for the next one after a pause with jitter, except when it was held back by a
 * proxy and another transport has shown that.
 */

import { BackOff } from './backoff.js'
import type { Environment } from './environment.js'
import { TailraceError, asError, reasonOf } from './errors.js'
import type { TailraceEvent } from './events.js'
import { requestJson } from './http.js'
import type { Picker } from './picker.js'
import type { Reading } from './reading.js'
import type { ReadRequest, Transport, TransportName } from './transports/contract.js'
import { poll } from './transports/poll.js'
import type { Waker } from './waker.js'
import { Watchdog } from './watchdog.js'

/** When a stream is silent this long, one poll asks whether a proxy holds its events back. */
const PROBE_MS = 4_000
const PROBE_MAX_MS = 60_000

export interface Followed {
  env: Environment
  picker: Picker
  waker: Waker
  transport(name: TransportName): Transport
  reading: Reading
  id: string
  path: string
  signal: AbortSignal
  /** Without any connection for this long, the client gives up. */
  giveUpMs: number
  isAuto: boolean
  onEvent(event: TailraceEvent): void
}

export async function follow(followed: Followed): Promise<void> {
  const { env, picker, reading, signal } = followed
  const backOff = new BackOff(env.random)
  let isExplained = false
  while (!reading.isDone) {
    if (signal.aborted) throw reasonOf(signal)
    const connection = new Connection(followed, backOff, picker.pick(env.clock.now()))
    const error = await connection.run()
    if (reading.isDone) return
    if (signal.aborted) throw reasonOf(signal)
    if (!error.retryable) throw error
    if (!connection.hasLived) {
      // Once: in an outage this request would double the tries.
      if (!followed.isAuto && connection.name === 'websocket' && !isExplained) await explain(followed)
      isExplained = true
      picker.leave(connection.name, env.clock.now())
    } else {
      isExplained = false
    }
    if (connection.isHeldBack) continue
    const pause = backOff.next(env.clock.now(), error.retryAfterS)
    if (backOff.outageMs(env.clock.now()) > followed.giveUpMs) {
      const message = `No connection for ${followed.giveUpMs} ms. The last error: ${error.message}`
      throw new TailraceError('gave_up', message, { retryable: true, cause: error })
    }
    env.onRetry?.(error)
    await followed.waker.sleep(pause, signal)
  }
}

/** A refused handshake has no readable reason. A plain request may have it: bad credentials, no such id. */
async function explain({ env, path, signal }: Followed): Promise<void> {
  try {
    await requestJson(env, path, { signal })
  } catch (error) {
    if (!asError(error).retryable) throw error
  }
}

/** One connection of one reading, with its watchdog. */
class Connection {
  hasLived = false
  isHeldBack = false
  private hasEvents = false
  private stopper = new AbortController()
  private watchdog: Watchdog
  private probeAt: number
  private probeMs = PROBE_MS
  private timer: unknown
  private asked: ReadRequest

  constructor(private readonly followed: Followed, private readonly backOff: BackOff, readonly name: TransportName) {
    const { env, reading, id, path } = followed
    const now = env.clock.now()
    this.watchdog = new Watchdog(now)
    this.probeAt = now + PROBE_MS
    this.asked = {
      id,
      path,
      cursor: reading.cursor,
      signal: this.stopper.signal,
      event: (event) => this.event(event),
      alive: (heartbeatS) => this.alive(heartbeatS),
      heartbeatS: () => this.watchdog.heartbeatMs / 1000,
      over: () => { reading.isOver = true },
    }
  }

  /** Returns why it stopped. */
  async run(): Promise<TailraceError> {
    const { signal } = this.followed
    const abort = () => this.stopper.abort(reasonOf(signal))
    signal.addEventListener('abort', abort, { once: true })
    this.look()
    try {
      await this.followed.transport(this.name).read(this.asked)
      return asError('The connection ended before the answer.')
    } catch (error) {
      return asError(error)
    } finally {
      this.followed.env.clock.clearTimeout(this.timer)
      signal.removeEventListener('abort', abort)
      this.stopper.abort()
    }
  }

  private event(event: TailraceEvent): void {
    if (this.stopper.signal.aborted || !this.followed.reading.accept(event)) return
    this.hasEvents = true
    this.backOff.progress()
    this.followed.onEvent(event)
  }

  private alive(heartbeatS?: unknown): void {
    this.hasLived = true
    this.backOff.alive()
    this.watchdog.heard(this.followed.env.clock.now(), heartbeatS)
  }

  private look(): void {
    const { clock } = this.followed.env
    this.timer = clock.setTimeout(() => {
      const now = clock.now()
      if (this.watchdog.isDead(now)) {
        return this.stop('stalled', `Nothing arrived for ${this.watchdog.silenceMs(now)} ms.`)
      }
      const canProbe = this.followed.isAuto && this.name !== 'poll' && !this.hasEvents
      if (canProbe && now >= this.probeAt) void this.probe()
      this.look()
    }, this.watchdog.lookMs)
  }

  private stop(code: string, message: string): void {
    this.stopper.abort(new TailraceError(code, message, { retryable: true }))
  }

  /** Some proxies open a stream and keep its bytes until it ends. A poll passes them. */
  private async probe(): Promise<void> {
    const { env, reading, picker } = this.followed
    this.probeMs = Math.min(this.probeMs * 2, PROBE_MAX_MS)
    this.probeAt = env.clock.now() + this.probeMs
    try {
      const polled = await poll(env, this.asked, this.asked.cursor, 0)
      const isNew = polled.events.length > 0 || (polled.done && !reading.isDone)
      if (!isNew || this.hasEvents) return
      this.isHeldBack = true
      picker.leave(this.name, env.clock.now())
      this.stop('held_back', 'held back')
    } catch {
      // the watchdog decides about this connection
    }
  }
}
