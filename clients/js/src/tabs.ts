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

/** How often a tab that reads asks whether the leader is there, s. The leader may be hidden, and its timers slow. */
const HEARTBEAT_S = 1
/** The most readings that have ended of which the leader keeps the events. */
const ENDED_MAX = 20

type Ask = { kind: 'read'; reader: string; id: string; cursor: string } | { kind: 'leave'; reader: string } | { kind: 'ping' }
type Tell =
  | { kind: 'event'; reader: string; event: TailraceEvent }
  | { kind: 'over'; reader: string }
  | { kind: 'error'; reader: string; code: string; message: string; retryable: boolean }
  | { kind: 'alive' }
  | { kind: 'gone' }

/**
 * A transport for the option `transport`. Tabs with the same `name` share; put the user into the name if
 * several may use the page. `lead` makes the client of the leader.
 */
export function shareAmongTabs(name: string, lead: () => Tailrace): Transport {
  const { navigator, BroadcastChannel } = globalThis as any
  if (!navigator?.locks || !BroadcastChannel) {
    throw new TailraceError('usage', 'There are no Web Locks or no BroadcastChannel here.', { retryable: false })
  }
  return new TabTransport(`tailrace:${name}`, lead)
}

class TabTransport implements Transport {
  readonly name = 'websocket'
  private readonly channel: BroadcastChannel
  private readonly readers = new Map<string, (tell: Tell) => void>()
  private readonly closing = new AbortController()
  private leader: Leader | undefined
  private timer: ReturnType<typeof setInterval> | undefined

  constructor(name: string, makeClient: () => Tailrace) {
    this.channel = new BroadcastChannel(name)
    this.channel.onmessage = ({ data }: MessageEvent<Ask | Tell>) => this.heard(data)
    const lead = () => new Promise<void>((resolve) => {
      this.leader = new Leader(makeClient(), (tell) => this.tell(tell))
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

  read(asked: ReadRequest): Promise<void> {
    const reader = randomKey()
    return new Promise((resolve, reject) => {
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
        asked.alive(HEARTBEAT_S)
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
      // Without a leader nothing answers, and two missing heartbeats end this connection.
      asked.alive(HEARTBEAT_S)
      this.timer ??= setInterval(() => this.ask({ kind: 'ping' }), HEARTBEAT_S * 1000)
      this.ask({ kind: 'read', reader, id: asked.id, cursor: asked.cursor })
    })
  }

  close(): void {
    this.closing.abort()
    for (const each of [...this.readers.values()]) each({ kind: 'gone' })
    this.channel.close()
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
    this.channel.postMessage(tell)
    this.deliver(tell)
  }

  private heard(data: Ask | Tell): void {
    if (data.kind === 'read' || data.kind === 'leave' || data.kind === 'ping') this.leader?.take(data)
    else this.deliver(data)
  }

  private deliver(tell: Tell): void {
    if (tell.kind === 'alive' || tell.kind === 'gone') {
      for (const each of [...this.readers.values()]) each(tell)
    } else {
      this.readers.get(tell.reader)?.(tell)
    }
  }
}

/** One reading of the leader: the events after `origin`, for all tabs that stand at one of them. */
interface Log {
  id: string
  origin: string
  events: TailraceEvent[]
  readers: Set<string>
  stopper: AbortController
  isDone: boolean
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

  constructor(private readonly client: Tailrace, private readonly tell: (tell: Tell) => void) {}

  take(ask: Ask): void {
    if (ask.kind === 'ping') return this.tell({ kind: 'alive' })
    if (ask.kind === 'leave') {
      for (const log of this.logs) this.left(log, ask.reader)
      return
    }
    const { reader, id, cursor } = ask
    const log = this.logs.find((each) => each.id === id && rest(each, cursor)) ?? this.open(id, cursor)
    const events = rest(log, cursor)!
    for (const event of events) this.tell({ kind: 'event', reader, event })
    if (!log.isDone) log.readers.add(reader)
    else if (!events.length) this.tell({ kind: 'over', reader })
  }

  close(): void {
    for (const { stopper } of this.logs) stopper.abort()
    this.client.close()
  }

  private open(id: string, origin: string): Log {
    const log: Log = { id, origin, events: [], readers: new Set(), stopper: new AbortController(), isDone: false }
    this.logs.push(log)
    void this.follow(log)
    return log
  }

  private async follow(log: Log): Promise<void> {
    const { signal } = log.stopper
    try {
      for await (const event of this.client.attach(log.id, log.origin, { signal })) {
        log.events.push(event)
        for (const reader of log.readers) this.tell({ kind: 'event', reader, event })
      }
      log.isDone = true
      if (!log.events.length) for (const reader of log.readers) this.tell({ kind: 'over', reader })
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
