/** WebSocket: one socket carries up to 100 generations. */

import type { Environment, SocketLike } from '../environment.js'
import type { Token } from '../environment.js'
import { TailraceError, asError, broken, reasonOf } from '../errors.js'
import { START, readEvent } from '../events.js'
import { requestJson } from '../http.js'
import { Watchdog } from '../watchdog.js'
import type { ReadRequest, Transport } from './contract.js'

const SUBSCRIPTIONS_MAX = 100
/** How long a socket without readers stays open for the next one, ms. */
const LINGER_MS = 1_000
/** Close codes after which this client would make the same mistake again. */
const OUR_FAULT = [1002, 1003, 1007, 1009]
/** Close code: the next handshake needs another token, and a browser would not see why it was refused. */
const TOKEN_EXPIRED = 4001
const STALLED = 'stalled'

interface Reader {
  asked: ReadRequest
  hasEvents: boolean
  stop(error?: TailraceError): void
}

export class WebSocketTransport implements Transport {
  readonly name = 'websocket'
  private sockets = new Set<Channel>()

  constructor(private readonly env: Environment) {
    if (!env.WebSocket) {
      throw new TailraceError('no_websocket', 'There is no WebSocket here: pass the option WebSocket.', {
        retryable: false,
      })
    }
  }

  async read(asked: ReadRequest): Promise<void> {
    let channel = [...this.sockets].find((each) => each.takes(asked.id))
    if (!channel) {
      const token = await this.env.credentials.token()
      channel = [...this.sockets].find((each) => each.takes(asked.id)) ?? this.open(token)
    }
    return channel.read(asked)
  }

  private open(token: Token): Channel {
    const channel: Channel = new Channel(this.env, token, () => this.sockets.delete(channel))
    this.sockets.add(channel)
    return channel
  }

  close(): void {
    for (const each of this.sockets) each.close(broken('closed'))
  }
}

class Channel {
  private readers = new Map<string, Reader>()
  /** Generations that were read here and left: their late frames would be joined to a new reading. */
  private left = new Set<string>()
  private isOpen = false
  private isClosed = false
  private socket: SocketLike
  private watchdog: Watchdog
  private timer: unknown
  private refusal: TailraceError | undefined

  constructor(private readonly env: Environment, private readonly token: Token, private readonly gone: () => void) {
    const query = token ? `?access_token=${encodeURIComponent(token)}` : ''
    this.socket = new env.WebSocket!(`${env.url.replace(/^http/, 'ws')}/v1/ws${query}`, 'tailrace.v1')
    this.watchdog = new Watchdog(env.clock.now())
    this.socket.onopen = () => this.opened()
    this.socket.onmessage = ({ data }) => this.take(data)
    this.socket.onclose = ({ code }) => void this.closed(code)
    this.socket.onerror = () => {} // `close` follows
    const late = broken(`No WebSocket within ${env.openMs} ms.`)
    this.timer = env.clock.setTimeout(() => this.close(late), env.openMs)
  }

  takes(id: string): boolean {
    return !this.isClosed && this.readers.size < SUBSCRIPTIONS_MAX && !this.readers.has(id) && !this.left.has(id)
  }

  read(asked: ReadRequest): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = () => this.abort(asked)
      const stop = (error?: TailraceError) => {
        asked.signal.removeEventListener('abort', abort)
        this.readers.delete(asked.id)
        if (!this.readers.size && !this.isClosed && this.isOpen) this.wait(LINGER_MS)
        if (error) reject(error)
        else resolve()
      }
      this.readers.set(asked.id, { asked, hasEvents: false, stop })
      asked.signal.addEventListener('abort', abort, { once: true })
      if (asked.signal.aborted) abort()
      else if (this.isOpen) this.subscribe(asked)
    })
  }

  close(error: TailraceError): void {
    this.socket.onclose = null
    this.socket.onmessage = null
    try {
      this.socket.close()
    } catch {
      // it was not open yet
    }
    this.end(error)
  }

  private opened(): void {
    this.isOpen = true
    this.say({ type: 'hello' })
    for (const { asked } of this.readers.values()) this.subscribe(asked)
    this.watchdog.heard(this.env.clock.now())
    this.wait(this.readers.size ? this.watchdog.heartbeatMs : LINGER_MS)
  }

  private subscribe({ id, cursor }: ReadRequest): void {
    this.say({ type: 'subscribe', id, ...(cursor === START ? {} : { last_event_id: cursor }) })
  }

  private say(frame: object): void {
    try {
      this.socket.send(JSON.stringify(frame))
    } catch (cause) {
      this.close(asError(cause))
    }
  }

  /** Look again after `ms`: ping a silent socket, close a socket that nobody needs. */
  private wait(ms: number): void {
    this.env.clock.clearTimeout(this.timer)
    if (this.isClosed) return
    this.timer = this.env.clock.setTimeout(() => {
      if (!this.readers.size) return this.close(broken('idle'))
      if (this.watchdog.silenceMs(this.env.clock.now()) >= this.watchdog.heartbeatMs) this.say({ type: 'ping' })
      this.wait(this.watchdog.heartbeatMs)
    }, ms)
  }

  private abort(asked: ReadRequest): void {
    const reader = this.readers.get(asked.id)
    const error = asError(reasonOf(asked.signal))
    // The whole socket is silent, so all its readers come back on another one.
    if (error.code === STALLED) return this.close(error)
    this.left.add(asked.id)
    if (this.isOpen) this.say({ type: 'unsubscribe', id: asked.id })
    reader?.stop(error)
  }

  private take(data: unknown): void {
    let frame: any
    try {
      frame = Object(JSON.parse(String(data)))
    } catch (cause) {
      return this.close(broken('A frame is not JSON.', cause))
    }
    if (frame.type === 'hello') this.hello(frame.heartbeat_s)
    this.watchdog.heard(this.env.clock.now())
    this.env.credentials.accepted()
    for (const { asked } of this.readers.values()) asked.alive(this.watchdog.heartbeatMs / 1000)
    if (frame.type === 'error') return this.fail(frame)
    const reader = this.readers.get(frame.id)
    if (!reader) return
    if (frame.type === 'caught_up') return void this.caughtUp(reader)
    const { id, event_id, ...members } = frame
    const event = readEvent(members, event_id)
    if (!event) return
    reader.hasEvents = true
    reader.asked.event(event)
    if (event.type === 'end') reader.stop()
  }

  private hello(heartbeatS: unknown): void {
    this.watchdog.heard(this.env.clock.now(), heartbeatS)
    this.wait(this.readers.size ? this.watchdog.heartbeatMs : LINGER_MS)
  }

  private fail({ id, code, message, retryable, retry_after_s }: any): void {
    const retryAfterS = Number(retry_after_s) || undefined
    const error = new TailraceError(String(code), String(message), { retryable: retryable === true, retryAfterS })
    if (id !== undefined) this.readers.get(id)?.stop(error)
    // A node that is older than `hello` answers it with this code.
    else if (code !== 'invalid_request') this.refusal = error
  }

  /** After a cursor nothing came: the cursor may be the end, and frames do not say so. */
  private async caughtUp({ hasEvents, asked, stop }: Reader): Promise<void> {
    if (hasEvents || asked.cursor === START) return
    try {
      const { signal } = asked
      const now = await requestJson<{ status: string; last_event_id: string }>(this.env, asked.path, { signal })
      const isEnded = now.status !== 'queued' && now.status !== 'running'
      if (!isEnded || now.last_event_id !== asked.cursor) return
      asked.over()
      stop()
    } catch (cause) {
      const error = asError(cause)
      if (!asked.signal.aborted) stop(error)
    }
  }

  private async closed(code: number): Promise<void> {
    this.isClosed = true
    const isFinal = code >= 4500 && code < 5000
    const isRefused = code === 4501 || this.refusal?.code === 'unauthorized'
    const hasOther = isRefused || code === TOKEN_EXPIRED ? await this.env.credentials.refused(this.token) : false
    const retryable = isRefused ? hasOther : !isFinal && !OUR_FAULT.includes(code)
    const name = isRefused ? 'unauthorized' : code === 4503 ? 'forbidden' : (this.refusal?.code ?? 'connection')
    const { message = `The socket was closed with ${code}.`, retryAfterS } = this.refusal ?? {}
    this.end(new TailraceError(name, message, { retryable, retryAfterS }))
  }

  private end(error: TailraceError): void {
    this.isClosed = true
    this.env.clock.clearTimeout(this.timer)
    this.gone()
    for (const reader of [...this.readers.values()]) reader.stop(error)
  }
}
