/**
 * `tailrace/tabs`: the tabs of one origin share one connection.
 *
 *   const client = new Tailrace({ url, transport: shareAmongTabs(url, () => new Tailrace({ url })) })
 *
 * One tab holds a Web Lock and is the leader. It reads each generation once and sends the events over a
 * BroadcastChannel to the tabs that asked. When the leader's tab is closed, the lock passes
 * to another tab, and the others come back there with their cursors. Starts and cancels are requests of
 * each tab.
 */

import type { Tailrace } from './client.js'
import { TailraceError, asError, broken } from './errors.js'
import { START, type TailraceEvent } from './events.js'
import { randomKey } from './keys.js'
import type { ReadRequest, Transport } from './transports/contract.js'
import { HEARTBEAT_DEFAULT_MS } from './watchdog.js'

/** How often a tab that reads asks whether the leader is there, s. The leader may be hidden, and its timers slow. */
const HEARTBEAT_S = 1
/** The most readings that have ended of which the leader keeps the events. */
const ENDED_MAX = 20
/** A reader waits so long for a tab that leads, ms; then it asks all the same. */
const LEADER_MS = 1_000
/** Between two signs of life of a server that are passed on, ms. Events are signs of life, too. */
const LIVE_MS = 500

type Ask =
  | { kind: 'read'; reader: string; id: string; path: string; cursor: string }
  | { kind: 'leave'; reader: string }
  | { kind: 'ping' }
type Tell =
  | { kind: 'event'; reader: string; event: TailraceEvent }
  | { kind: 'over'; reader: string }
  | { kind: 'error'; reader: string; code: string; message: string; retryable: boolean }
  | { kind: 'live'; reader: string; heartbeatS?: unknown }
  | { kind: 'alive' }
  | { kind: 'gone' }

/**
 * A transport for the option `transport`. Tabs with the same `name` share; put the user into the name if
 * several may use the page. `lead` makes the client of the leader.
 */
export function shareAmongTabs(name: string, lead: () => Tailrace): Transport {
  return shared(name, () => ofClient(lead()), false)
}

/**
 * The same with a single transport, which the leader uses as it is: when its connection breaks, each tab hears that and
 * comes back by itself. All tabs have the events as they arrived, with repeats, and the server's own signs of life.
 */
export function shareTransport(name: string, make: () => Transport): Transport {
  return shared(name, () => ofTransport(make()), true)
}

function shared(name: string, lead: () => Source, isBare: boolean): Transport {
  const { navigator, BroadcastChannel } = globalThis as any
  if (!navigator?.locks || !BroadcastChannel) {
    throw new TailraceError('usage', 'There are no Web Locks or no BroadcastChannel here.', { retryable: false })
  }
  return new TabTransport(`tailrace:${name}`, lead, isBare)
}

/** What the leader reads with. `follow` returns after the end, or when nothing follows `origin`. */
interface Source {
  follow(log: Log, event: (event: TailraceEvent) => void, live: (heartbeatS?: unknown) => void): Promise<void>
  close(): void
}

const ofClient = (client: Tailrace): Source => ({
  async follow({ id, origin, stopper: { signal } }, take) {
    for await (const event of client.attach(id, origin, { signal })) take(event)
  },
  close: () => client.close(),
})

const ofTransport = (transport: Transport): Source => ({
  async follow({ id, path, origin, stopper: { signal } }, take, live) {
    let isDone = false
    let heartbeatS = HEARTBEAT_DEFAULT_MS / 1000
    await transport.read({
      id, path, signal, cursor: origin,
      event(event) {
        isDone ||= event.type === 'end'
        take(event)
      },
      alive(announcedS) {
        heartbeatS = Number(announcedS) || heartbeatS
        live(announcedS)
      },
      heartbeatS: () => heartbeatS,
      over() { isDone = true },
    })
    if (!isDone) throw broken('The connection ended before the answer.')
  },
  close: () => transport.close(),
})

class TabTransport implements Transport {
  readonly name = 'websocket'
  private readonly channel: BroadcastChannel
  private readonly readers = new Map<string, (tell: Tell) => void>()
  private readonly closing = new AbortController()
  private leader: Leader | undefined
  private timer: ReturnType<typeof setInterval> | undefined
  private isLed = () => {}
  /** Some tab leads, or none has answered for a while. */
  private readonly led = new Promise<void>((resolve) => { this.isLed = resolve })

  constructor(name: string, make: () => Source, private readonly isBare: boolean) {
    this.channel = new BroadcastChannel(name)
    this.channel.onmessage = ({ data }: MessageEvent<Ask | Tell>) => this.heard(data)
    this.ask({ kind: 'ping' })
    setTimeout(this.isLed, LEADER_MS)
    const lead = () => new Promise<void>((resolve) => {
      this.leader = new Leader(make(), (tell) => this.tell(tell))
      // Readers of an earlier leader come back at once.
      this.tell({ kind: 'gone' })
      this.closing.signal.addEventListener('abort', () => {
        this.leader?.close()
        this.leader = undefined
        resolve()
      })
    })
    navigator.locks.request(name, { signal: this.closing.signal }, lead).catch(() => {})
  }

  async read(asked: ReadRequest): Promise<void> {
    await this.led
    const reader = randomKey()
    return new Promise((resolve, reject) => {
      if (asked.signal.aborted || this.closing.signal.aborted) return reject(asError(asked.signal.reason ?? 'closed'))
      const stop = (error?: TailraceError) => {
        this.readers.delete(reader)
        if (!this.readers.size) this.rest()
        asked.signal.removeEventListener('abort', abort)
        if (error) reject(error)
        else resolve()
      }
      const abort = () => {
        this.ask({ kind: 'leave', reader })
        stop(asError(asked.signal.reason))
      }
      this.readers.set(reader, (tell) => {
        this.alive(asked, tell)
        if (tell.kind === 'event') {
          asked.event(tell.event)
          if (tell.event.type === 'end') stop()
        } else if (tell.kind === 'over') {
          asked.over()
          stop()
        } else if (tell.kind === 'error') {
          stop(new TailraceError(tell.code, tell.message, { retryable: tell.retryable }))
        } else if (tell.kind === 'gone') {
          stop(broken('Another tab leads now.'))
        }
      })
      asked.signal.addEventListener('abort', abort)
      if (!this.isBare) {
        // Without a leader nothing answers, and two missing heartbeats end this connection.
        asked.alive(HEARTBEAT_S)
        this.timer ??= setInterval(() => this.ask({ kind: 'ping' }), HEARTBEAT_S * 1000)
      }
      this.ask({ kind: 'read', reader, id: asked.id, path: asked.path, cursor: asked.cursor })
    })
  }

  close(): void {
    for (const reader of this.readers.keys()) this.ask({ kind: 'leave', reader })
    this.closing.abort()
    for (const each of [...this.readers.values()]) each({ kind: 'gone' })
    this.channel.close()
  }

  private alive(asked: ReadRequest, tell: Tell): void {
    if (!this.isBare) asked.alive(HEARTBEAT_S)
    else if (tell.kind === 'live') asked.alive(tell.heartbeatS)
    else if (tell.kind === 'event' || tell.kind === 'over') asked.alive()
  }

  private rest(): void {
    clearInterval(this.timer)
    this.timer = undefined
  }

  private ask(ask: Ask): void {
    if (this.leader) this.leader.take(ask)
    else this.channel.postMessage(ask)
  }

  private tell(tell: Tell): void {
    if (!('reader' in tell) || !this.readers.has(tell.reader)) this.channel.postMessage(tell)
    this.deliver(tell)
  }

  private heard(data: Ask | Tell): void {
    if (data.kind === 'read' || data.kind === 'leave' || data.kind === 'ping') this.leader?.take(data)
    else this.deliver(data)
  }

  private deliver(tell: Tell): void {
    if (tell.kind === 'alive' || tell.kind === 'gone') {
      this.isLed()
      for (const each of [...this.readers.values()]) each(tell)
    } else {
      this.readers.get(tell.reader)?.(tell)
    }
  }
}

/** One reading of the leader: the events after `origin`, for all tabs that stand at one of them. */
interface Log {
  id: string
  path: string
  origin: string
  events: TailraceEvent[]
  readers: Set<string>
  stopper: AbortController
  isDone: boolean
  /** The last sign of life of the server. */
  live: { kind: 'live'; heartbeatS: unknown } | null
}

/**
 * What follows a cursor; undefined: the log does not have the cursor itself. An event may stand for several
 * tokens, so a cursor between two events of the log needs a reading of its own.
 */
export function rest({ origin, events }: Pick<Log, 'origin' | 'events'>, cursor: string): TailraceEvent[] | undefined {
  if (cursor === origin) return events.slice()
  const at = cursor === START ? -1 : events.map((event) => event.id).lastIndexOf(cursor)
  return at < 0 ? undefined : events.slice(at + 1)
}

class Leader {
  private logs: Log[] = []

  constructor(private readonly source: Source, private readonly tell: (tell: Tell) => void) {}

  take(ask: Ask): void {
    if (ask.kind === 'ping') return this.tell({ kind: 'alive' })
    if (ask.kind === 'leave') {
      for (const log of this.logs) this.left(log, ask.reader)
      return
    }
    const { reader, id, cursor } = ask
    const log = this.logs.find((each) => each.id === id && rest(each, cursor)) ?? this.open(ask)
    const events = rest(log, cursor)!
    if (log.live) this.tell({ ...log.live, reader })
    for (const event of events) this.tell({ kind: 'event', reader, event })
    if (!log.isDone) log.readers.add(reader)
    else if (!events.length) this.tell({ kind: 'over', reader })
  }

  close(): void {
    for (const { stopper } of this.logs) stopper.abort()
    this.source.close()
  }

  private open({ id, path, cursor: origin }: Ask & { kind: 'read' }): Log {
    const stopper = new AbortController()
    const log: Log = { id, path, origin, events: [], readers: new Set(), stopper, isDone: false, live: null }
    this.logs.push(log)
    void this.follow(log)
    return log
  }

  private async follow(log: Log): Promise<void> {
    const { signal } = log.stopper
    let toldMs = -Infinity
    const take = (event: TailraceEvent) => {
      log.events.push(event)
      for (const reader of log.readers) this.tell({ kind: 'event', reader, event })
    }
    const live = (heartbeatS?: unknown) => {
      if (heartbeatS === undefined && performance.now() - toldMs < LIVE_MS) return
      toldMs = performance.now()
      log.live = { kind: 'live', heartbeatS: heartbeatS ?? log.live?.heartbeatS }
      for (const reader of log.readers) this.tell({ ...log.live, reader })
    }
    try {
      // In a turn of its own, so that the first reader is in the log.
      await null
      await this.source.follow(log, take, live)
      log.isDone = true
      if (log.events.at(-1)?.type !== 'end') for (const reader of log.readers) this.tell({ kind: 'over', reader })
      const ended = this.logs.filter((each) => each.isDone)
      this.logs = this.logs.filter((each) => !ended.slice(0, -ENDED_MAX).includes(each))
    } catch (cause) {
      this.logs = this.logs.filter((each) => each !== log)
      if (signal.aborted) return
      const { code, message, retryable } = asError(cause)
      for (const reader of log.readers) this.tell({ kind: 'error', reader, code, message, retryable })
    }
    log.readers.clear()
  }

  private left(log: Log, reader: string): void {
    if (!log.readers.delete(reader) || log.readers.size || log.isDone) return
    this.logs = this.logs.filter((each) => each !== log)
    log.stopper.abort()
  }
}
