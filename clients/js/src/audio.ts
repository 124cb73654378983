/**
 * `tailrace/audio`: send audio to a running generation while it is recorded (docs/audio.md).
 *
 *   const recording = await new TailraceAudio({ url, token }).start({ model: 'demo-transcriber' })
 *   for await (const text of client.attach(recording.id).text()) …   // with the core, meanwhile
 *   await recording.write(bytes)
 *   await recording.finish()
 *
 * Each piece arrives once and in order. What the server has not acknowledged is kept and sent again, over a
 * connection to any node.
 */

import { BackOff } from './backoff.js'
import { Credentials, baseOf, systemClock, type Clock, type Environment, type SocketConstructor, type TokenSource } from './environment.js'
import { TailraceError, aborted, asError } from './errors.js'
import { requestJson } from './http.js'
import { randomKey } from './keys.js'
import { repeat } from './repeat.js'
import { Waker } from './waker.js'
import type { Link } from './audio/link.js'
import { Outgoing } from './audio/outgoing.js'
import { RequestLink } from './audio/requests.js'
import { SocketLink } from './audio/socket.js'

export interface AudioOptions {
  /** Of the server, with or without `/v1`. */
  url: string
  token?: TokenSource
  /** Default `auto`: WebSocket, or one request for each chunk where no WebSocket opens. */
  transport?: 'auto' | 'websocket' | 'http'
  fetch?: typeof fetch
  WebSocket?: SocketConstructor
  clock?: Clock
  random?: () => number
  /** The longest wait for the head of an answer and for an open socket, ms. Default 8,000. */
  openTimeoutMs?: number
  /** Give up after so long without any answer, ms. Default 600,000. */
  giveUpMs?: number
  /** The most bytes that are kept for the server: recorded, and not acknowledged. Default 4,194,304. */
  bufferBytesMax?: number
  /** `live`: the server takes audio. `lost`: there is no connection, and the recording is kept meanwhile. */
  onConnection?: (state: 'live' | 'lost') => void
}

/** The members of docs/protocol.md, "Starting", and these: */
export interface RecordingOptions {
  model?: string
  /** Default `audio/pcm;rate=16000;channels=1`: 16-bit signed integers, little-endian. */
  mediaType?: string
  prompt?: string
  params?: Record<string, unknown>
  session?: string
  metadata?: Record<string, unknown>
  on_disconnect?: 'continue' | 'cancel' | number
  queue_wait_s?: number
  deadline_s?: number
  webhook?: { url: string; secret?: string }
  /** Two calls with the same key are one generation. Default: a random key. */
  idempotencyKey?: string
  signal?: AbortSignal
}

const PCM = 'audio/pcm;rate=16000;channels=1'
const BUFFER_BYTES_MAX = 4_194_304

interface Host {
  env: Environment
  waker: Waker
  giveUpMs: number
  isAuto: boolean
  hasSocket: boolean
  bufferBytesMax: number
  onConnection?: (state: 'live' | 'lost') => void
}

export class TailraceAudio {
  private readonly host: Host

  constructor(options: AudioOptions) {
    const clock = options.clock ?? systemClock
    const world = globalThis as any
    const { transport = 'auto' } = options
    const env: Environment = {
      url: baseOf(options.url),
      clock,
      random: options.random ?? Math.random,
      fetch: options.fetch ?? ((...args) => world.fetch(...args)),
      WebSocket: options.WebSocket ?? world.WebSocket,
      credentials: new Credentials(options.token),
      openMs: options.openTimeoutMs ?? 8_000,
    }
    if (!['auto', 'websocket', 'http'].includes(transport)) throw usage('transport must be auto, websocket or http')
    if (transport === 'websocket' && !env.WebSocket) {
      throw new TailraceError('no_websocket', 'There is no WebSocket here: pass the option WebSocket.', { retryable: false })
    }
    this.host = {
      env, waker: new Waker(clock), giveUpMs: options.giveUpMs ?? 600_000,
      isAuto: transport === 'auto', hasSocket: transport !== 'http' && Boolean(env.WebSocket),
      bufferBytesMax: options.bufferBytesMax ?? BUFFER_BYTES_MAX, onConnection: options.onConnection,
    }
  }

  /** Start a generation that takes audio. Returns when it is accepted; a retry never starts a second one. */
  async start(options: RecordingOptions = {}): Promise<Recording> {
    const { mediaType, idempotencyKey, signal, ...members } = options
    const body = { ...members, audio: { media_type: mediaType ?? PCM } }
    const headers = { 'idempotency-key': idempotencyKey ?? randomKey() }
    const send = () => requestJson<{ id: string }>(this.host.env, '/v1/generations', { body, headers, signal })
    const { id } = await repeat(this.host, send, signal)
    return new Recording(this.host, id, signal)
  }

  /** Go on sending to a generation whose sender is gone, behind what the server has; `finish` alone ends its audio. */
  open(id: string, { signal }: { signal?: AbortSignal } = {}): Recording {
    return new Recording(this.host, id, signal)
  }
}

/** The audio of one generation, until `finish`, `cancel` or `close`. */
export class Recording {
  private readonly outgoing: Outgoing
  private readonly leaving = new AbortController()
  private link: Link | undefined
  private ended = false
  private error: TailraceError | undefined
  private changed: (() => void)[] = []
  private isLive: boolean | undefined

  constructor(private readonly host: Host, readonly id: string, private readonly signal?: AbortSignal) {
    this.outgoing = new Outgoing(host.bufferBytesMax)
    signal?.addEventListener('abort', this.close)
    if (signal?.aborted) this.close()
    else void this.run()
  }

  /** Resolves when the server has everything, after `finish`; rejects when nothing more is sent. */
  get done(): Promise<void> {
    return this.waitForEnd()
  }

  /** Bytes that were given, and that the server has not acknowledged. */
  get bufferedBytes(): number {
    return this.outgoing.bufferedBytes
  }

  /** Why nothing is sent any more; undefined as long as all is well. */
  get stoppedBy(): TailraceError | undefined {
    return this.error
  }

  /** For a live source, which cannot wait. False: the buffer is full, nothing was taken: stop recording. */
  offer(bytes: ArrayBuffer | ArrayBufferView): boolean {
    if (this.error) throw this.error
    const isTaken = this.outgoing.offer(viewOf(bytes))
    this.link?.pump()
    return isTaken
  }

  /** For a source that can wait: returns when the buffer has taken the bytes. They may be of any length. */
  async write(bytes: ArrayBuffer | ArrayBufferView): Promise<void> {
    const all = viewOf(bytes)
    const step = Math.min(65_536, this.host.bufferBytesMax)
    for (let at = 0; at < all.length; at += step) {
      const piece = all.subarray(at, at + step)
      while (!this.offer(piece)) await this.change()
    }
  }

  /** No audio follows. Returns when the server has everything. May be called again. */
  async finish(): Promise<void> {
    this.outgoing.finish()
    this.link?.pump()
    await this.waitForEnd()
  }

  /** End the generation, on any node. The transcript so far stays. */
  async cancel(): Promise<{ id: string; status: string }> {
    this.close()
    const { env } = this.host
    const send = () => requestJson<{ id: string; status: string }>(env, `/v1/generations/${encodeURIComponent(this.id)}/cancel`, { method: 'POST' })
    return repeat(this.host, send)
  }

  /** Stop sending, and drop what was not sent. The generation waits for audio until its idle limit. */
  readonly close = (): void => {
    this.stop(aborted())
    this.leaving.abort(aborted())
  }

  private async run(): Promise<void> {
    const { env, waker, giveUpMs } = this.host
    const backOff = new BackOff(env.random)
    let hasSocket = this.host.hasSocket
    while (!this.ended) {
      let hasLived = false
      const error = await this.connect(hasSocket, () => {
        hasLived = true
        backOff.alive()
        this.tell(true)
      }, () => {
        backOff.progress()
      })
      if (!error) return this.stop()
      this.tell(false)
      if (this.ended) return
      if (!error.retryable) return this.stop(error)
      // The other way may pass where this one does not.
      if (!hasLived && this.host.isAuto && this.host.hasSocket) hasSocket = !hasSocket
      const pause = backOff.next(env.clock.now(), error.retryAfterS)
      if (backOff.outageMs(env.clock.now()) > giveUpMs) {
        const message = `No connection for ${giveUpMs} ms. The last error: ${error.message}`
        return this.stop(new TailraceError('gave_up', message, { retryable: true, cause: error }))
      }
      await waker.sleep(pause, this.leaving.signal).catch(() => {})
    }
  }

  /** One connection. Returns why it ended, or nothing when the server has everything. */
  private async connect(hasSocket: boolean, alive: () => void, progress: () => void): Promise<TailraceError | undefined> {
    const { env } = this.host
    const { outgoing } = this
    let before = outgoing.acknowledged
    const changed = () => {
      if (outgoing.acknowledged > before) progress()
      before = outgoing.acknowledged
      this.wake()
    }
    const upload = { env, id: this.id, outgoing, signal: this.leaving.signal, alive, changed }
    try {
      this.link = hasSocket ? new SocketLink(upload, await env.credentials.token()) : new RequestLink(upload)
      await this.link.over
      return undefined
    } catch (cause) {
      return asError(cause)
    } finally {
      this.link = undefined
    }
  }

  private tell(isLive: boolean): void {
    if (this.isLive === isLive) return
    this.isLive = isLive
    this.host.onConnection?.(isLive ? 'live' : 'lost')
  }

  private stop(error?: TailraceError): void {
    if (this.ended) return
    this.ended = true
    this.error = error
    this.signal?.removeEventListener('abort', this.close)
    this.wake()
  }

  private wake(): void {
    for (const tell of this.changed.splice(0)) tell()
  }

  private async waitForEnd(): Promise<void> {
    while (!this.ended) await this.change()
    if (this.error) throw this.error
  }

  private async change(): Promise<void> {
    if (this.error) throw this.error
    await new Promise<void>((tell) => this.changed.push(tell))
    if (this.error) throw this.error
  }
}

const usage = (message: string): TailraceError => new TailraceError('usage', message, { retryable: false })

function viewOf(bytes: ArrayBuffer | ArrayBufferView): Uint8Array {
  if (ArrayBuffer.isView(bytes)) return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return new Uint8Array(bytes)
}
