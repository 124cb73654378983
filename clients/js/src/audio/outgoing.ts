/**
 * The audio that a server has not acknowledged yet: chunks and their numbers. Without I/O.
 *
 * Invariants: a chunk keeps its number and its bytes once they were sent; chunks leave in order; no more bytes are
 * under way than the window that the server has named. Chunks that are acknowledged are kept for a while, because a
 * server whose Redis fails over may have lost the newest ones.
 */

import { TailraceError } from '../errors.js'

/** The server's limit of one chunk. */
export const CHUNK_BYTES_MAX = 65_536
/** Acknowledged, and kept for a server that lost them. */
const KEPT_BYTES = 2_097_152

/** The statuses in which a generation takes audio. */
const ACTIVE = ['queued', 'running']

export interface Chunk { seq: number; bytes: Uint8Array; isLast: boolean }

/** What the server says about the audio of a generation. */
export interface AudioState { next_seq: number; window_bytes: number; is_complete?: boolean; status?: string }

export class Outgoing {
  /** Cut: acknowledged ones, sent ones, and then those to send. */
  private chunks: Chunk[] = []
  private pieces: Uint8Array[] = []
  private piecesBytes = 0
  /** The first chunk gets the number that the server expects. */
  private nextSeq = 0
  /** The number of the newest chunk that the server has. */
  acknowledged = 0
  private sentTo = 0
  private windowBytes = 0
  private isFinishing = false
  private lastSeq = 0
  private hasState = false

  constructor(private readonly bufferBytesMax: number) {}

  /** Bytes that the server has not acknowledged. */
  get bufferedBytes(): number {
    return this.piecesBytes + bytesOf(this.chunks.filter(({ seq }) => seq > this.acknowledged))
  }

  /** Chunks are under way, and the server has not answered them. */
  get isWaiting(): boolean {
    return this.inFlight.length > 0
  }

  /** Bytes of the chunk that the server answers next. */
  get oldestBytes(): number {
    return this.inFlight[0]?.bytes.length ?? 0
  }

  /** Everything is acknowledged, the last chunk too. */
  get isDone(): boolean {
    return this.lastSeq > 0 && this.acknowledged >= this.lastSeq
  }

  /** Only the server's state helps: what it has is not known, or it has no room. Ask after a pause. */
  get isBlocked(): boolean {
    return !this.isDone && (!this.hasState || (this.hasMore && !this.inFlight.length))
  }

  /** Take a copy of the bytes. False: the buffer has no room, and nothing was taken. */
  offer(bytes: Uint8Array): boolean {
    if (this.isFinishing) throw usage('The audio is finished: nothing may follow.')
    if (bytes.length > this.bufferBytesMax) throw usage(`At most ${this.bufferBytesMax} bytes at once.`)
    if (this.bufferedBytes + bytes.length > this.bufferBytesMax) return false
    if (!bytes.length) return true
    this.pieces.push(bytes.slice())
    this.piecesBytes += bytes.length
    return true
  }

  /** The next chunk that is cut with nothing behind it is the last one. */
  finish(): void {
    this.isFinishing = true
  }

  /** Return the next chunk that may leave now. */
  next(): Chunk | undefined {
    if (!this.hasState) return undefined
    const room = this.windowBytes - bytesOf(this.inFlight)
    let chunk = this.chunks.find(({ seq }) => seq > this.sentTo)
    if (chunk ? chunk.bytes.length > room : this.piecesBytes > 0 && room <= 0) return undefined
    chunk ??= this.cut(Math.max(0, Math.min(room, CHUNK_BYTES_MAX)))
    if (chunk) this.sentTo = chunk.seq
    return chunk
  }

  /** The server has this chunk and all before, and has room for so many bytes behind it. */
  received(seq: number, windowBytes: number): void {
    if (!this.hasState || seq < this.acknowledged) return // said before the state that follows
    if (seq >= this.nextSeq) throw conflict()
    this.sentTo = Math.max(this.sentTo, seq)
    this.acknowledge(seq)
    this.windowBytes = windowBytes
  }

  /** What a new connection, or a server without room, says: send from there. Throws if these bytes are gone. */
  state({ next_seq, window_bytes, is_complete, status }: AudioState): void {
    if (status && !ACTIVE.includes(status) && !is_complete) throw ended(status)
    const first = this.chunks[0]?.seq ?? this.nextSeq
    if (!this.nextSeq) this.nextSeq = next_seq
    else if (next_seq > this.nextSeq) throw conflict()
    else if (next_seq < first) {
      throw new TailraceError('audio_lost', `The server expects chunk ${next_seq}, which is no longer kept.`, { retryable: false })
    }
    this.sentTo = this.acknowledged = next_seq - 1
    this.windowBytes = window_bytes
    this.hasState = true
    if (is_complete && !this.lastSeq) {
      if (this.piecesBytes) {
        throw new TailraceError('audio_complete', 'The audio of this generation is complete: nothing may follow.', { retryable: false })
      }
      this.isFinishing = true
      this.lastSeq = this.acknowledged
    }
  }

  /** The connection is gone, or the server had no room for a chunk: only its state tells what it has. */
  forget(): void {
    this.hasState = false
  }

  private get inFlight(): Chunk[] {
    return this.chunks.filter(({ seq }) => seq > this.acknowledged && seq <= this.sentTo)
  }

  private get hasMore(): boolean {
    return this.piecesBytes > 0 || (this.isFinishing && !this.lastSeq) || this.chunks.some(({ seq }) => seq > this.sentTo)
  }

  private acknowledge(seq: number): void {
    this.acknowledged = Math.max(this.acknowledged, seq)
    let kept = bytesOf(this.chunks.filter((each) => each.seq <= this.acknowledged))
    while (kept > KEPT_BYTES) kept -= this.chunks.shift()!.bytes.length
  }

  private cut(bytesMax: number): Chunk | undefined {
    if (this.lastSeq || (!this.piecesBytes && !this.isFinishing)) return undefined
    const bytes = this.take(Math.min(bytesMax, this.piecesBytes))
    const chunk = { seq: this.nextSeq, bytes, isLast: this.isFinishing && !this.piecesBytes }
    this.nextSeq += 1
    if (chunk.isLast) this.lastSeq = chunk.seq
    this.chunks.push(chunk)
    return chunk
  }

  private take(count: number): Uint8Array {
    const bytes = new Uint8Array(count)
    for (let at = 0; at < count; ) {
      const piece = this.pieces[0]
      const part = piece.subarray(0, count - at)
      bytes.set(part, at)
      at += part.length
      if (part.length < piece.length) this.pieces[0] = piece.subarray(part.length)
      else this.pieces.shift()
    }
    this.piecesBytes -= count
    return bytes
  }
}

const bytesOf = (chunks: Chunk[]): number => chunks.reduce((sum, { bytes }) => sum + bytes.length, 0)

const ended = (status: string): TailraceError =>
  new TailraceError('generation_ended', `This generation has ended as ${status}.`, { retryable: false, members: { status } })

const usage = (message: string): TailraceError => new TailraceError('usage', message, { retryable: false })

const conflict = (): TailraceError =>
  new TailraceError('sequence_conflict', 'Another program sends audio to this generation.', { retryable: false })
