/** Audio over a WebSocket of its own: many chunks are under way, as far as the server's window reaches. */

import type { SocketLike, Token } from '../environment.js'
import { TailraceError, asError, broken, reasonOf } from '../errors.js'
import { Watchdog } from '../watchdog.js'
import { canResume, errorOf, roomMs, type Link, type Upload } from './link.js'
import type { Chunk } from './outgoing.js'

interface BinarySocket extends SocketLike { send(data: string | Uint8Array): void }

/** Close codes after which this client would make the same mistake again. */
const OUR_FAULT = [1002, 1003, 1007, 1009]
const TOKEN_EXPIRED = 4001
/**
 * The server answers each frame about audio within 5 s. A connection that owes an answer for longer is dead, and to
 * wait for the heartbeat would take as long as the server waits for audio. A large chunk gets time for a slow line.
 */
const ANSWER_MS = 8_000
const SLOW_BYTES_PER_MS = 4

export class SocketLink implements Link {
  readonly over: Promise<void>
  private settle!: (error?: TailraceError) => void
  private readonly socket: BinarySocket
  private readonly watchdog: Watchdog
  private timer: unknown
  private asking: unknown
  /** The server owes an answer to this question. */
  private isAsked = false
  /** Since when the oldest frame without an answer is under way, ms. */
  private owedSince: number | undefined
  private isOpen = false
  private isOver = false
  private refusal: TailraceError | undefined

  constructor(private readonly upload: Upload, private readonly token: Token) {
    const { env, signal, outgoing } = upload
    this.over = new Promise((resolve, reject) => { this.settle = (error) => (error ? reject(error) : resolve()) })
    outgoing.forget()
    const query = token ? `?access_token=${encodeURIComponent(token)}` : ''
    this.socket = new env.WebSocket!(`${env.url.replace(/^http/, 'ws')}/v1/ws${query}`, 'tailrace.v1')
    this.watchdog = new Watchdog(env.clock.now())
    this.socket.onopen = () => this.opened()
    this.socket.onmessage = ({ data }) => this.take(data)
    this.socket.onclose = ({ code }) => void this.closed(code)
    this.socket.onerror = () => {} // `close` follows
    signal.addEventListener('abort', this.abort)
    if (signal.aborted) this.abort()
    else this.timer = env.clock.setTimeout(() => this.end(broken(`No WebSocket within ${env.openMs} ms.`)), env.openMs)
  }

  pump(): void {
    const { outgoing } = this.upload
    if (!this.isOpen || this.isOver) return
    for (let chunk = outgoing.next(); chunk; chunk = outgoing.next()) {
      this.owedSince ??= this.upload.env.clock.now()
      this.send(frameOf(this.upload.id, chunk))
    }
    if (outgoing.isDone) this.end()
    else if (outgoing.isBlocked) this.askLater(roomMs())
  }

  private opened(): void {
    this.isOpen = true
    this.say({ type: 'hello' })
    this.ask()
    this.watchdog.heard(this.upload.env.clock.now())
    this.look()
  }

  private look(): void {
    const { clock } = this.upload.env
    clock.clearTimeout(this.timer)
    this.timer = clock.setTimeout(() => {
      const now = clock.now()
      if (this.watchdog.isDead(now) || this.isUnanswered(now)) {
        return this.end(broken(`Nothing arrived for ${this.watchdog.silenceMs(now)} ms.`))
      }
      if (this.watchdog.silenceMs(now) >= this.watchdog.heartbeatMs) this.say({ type: 'ping' })
      this.look()
    }, this.watchdog.lookMs)
  }

  /** The server owes an answer, and has said nothing at all for too long. */
  private isUnanswered(now: number): boolean {
    if (this.owedSince === undefined) return false
    if (now < this.owedSince) this.owedSince = now // a clock that jumps back
    const silenceMs = Math.min(this.watchdog.silenceMs(now), now - this.owedSince)
    return silenceMs > ANSWER_MS + this.upload.outgoing.oldestBytes / SLOW_BYTES_PER_MS
  }

  private ask(): void {
    this.asking = undefined
    this.isAsked = true
    this.owedSince = this.upload.env.clock.now()
    this.say({ type: 'audio_state', id: this.upload.id })
  }

  /** One question at a time. */
  private askLater(ms: number): void {
    if (!this.isAsked) this.asking ??= this.upload.env.clock.setTimeout(() => this.ask(), ms)
  }

  private say(frame: object): void {
    this.send(JSON.stringify(frame))
  }

  private send(data: string | Uint8Array): void {
    if (this.isOver) return
    try {
      this.socket.send(data)
    } catch (cause) {
      this.end(asError(cause))
    }
  }

  private take(data: unknown): void {
    const { env, outgoing, id } = this.upload
    try {
      const frame = Object(JSON.parse(String(data)))
      this.watchdog.heard(env.clock.now(), frame.type === 'hello' ? frame.heartbeat_s : undefined)
      env.credentials.accepted()
      this.upload.alive()
      if (frame.type === 'error') return this.fail(frame)
      if (frame.id !== id) return
      if (frame.type === 'audio_state') {
        this.isAsked = false
        outgoing.state(frame)
      } else if (frame.type === 'audio_received') outgoing.received(frame.seq, frame.window_bytes)
      else return
    } catch (cause) {
      return this.end(cause instanceof SyntaxError ? broken('A frame is not JSON.', cause) : asError(cause))
    }
    this.answered()
    this.upload.changed()
    this.pump()
  }

  private answered(): void {
    const owes = this.isAsked || this.upload.outgoing.isWaiting
    this.owedSince = owes ? this.upload.env.clock.now() : undefined
  }

  private fail(frame: any): void {
    const error = errorOf(frame)
    if (frame.id === undefined) {
      // A node that is older than `hello` answers it with this code.
      if (error.code !== 'invalid_request') this.refusal = error
    } else if (frame.id === this.upload.id) {
      if (!canResume(error.code)) return this.end(error)
      this.upload.outgoing.forget()
      this.answered()
      this.askLater(error.code === 'audio_full' ? roomMs(error.retryAfterS) : 0)
    }
  }

  private readonly abort = (): void => this.end(asError(reasonOf(this.upload.signal)))

  private async closed(code: number): Promise<void> {
    const { credentials } = this.upload.env
    const isRefused = code === 4501 || this.refusal?.code === 'unauthorized'
    const hasOther = isRefused || code === TOKEN_EXPIRED ? await credentials.refused(this.token) : false
    const isFinal = (code >= 4500 && code < 5000) || OUR_FAULT.includes(code)
    const name = isRefused ? 'unauthorized' : code === 4503 ? 'forbidden' : (this.refusal?.code ?? 'connection')
    const { message = `The socket was closed with ${code}.`, retryAfterS } = this.refusal ?? {}
    this.end(new TailraceError(name, message, { retryable: isRefused ? hasOther : !isFinal, retryAfterS }))
  }

  private end(error?: TailraceError): void {
    if (this.isOver) return
    this.isOver = true
    const { clock } = this.upload.env
    clock.clearTimeout(this.timer)
    clock.clearTimeout(this.asking)
    this.upload.signal.removeEventListener('abort', this.abort)
    this.socket.onclose = this.socket.onmessage = this.socket.onopen = null
    try {
      this.socket.close()
    } catch {
      // it was not open yet
    }
    this.settle(error)
  }
}

/** A line of JSON, a line feed, and the bytes. */
export function frameOf(id: string, { seq, bytes, isLast }: Chunk): Uint8Array {
  const head = new TextEncoder().encode(`${JSON.stringify({ type: 'audio', id, seq, ...(isLast ? { last: true } : {}) })}\n`)
  const frame = new Uint8Array(head.length + bytes.length)
  frame.set(head)
  frame.set(bytes, head.length)
  return frame
}
