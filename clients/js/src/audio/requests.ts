/** Audio over HTTP: one request for each chunk, for networks through which no WebSocket comes. */

import { TailraceError, asError } from '../errors.js'
import { requestJson } from '../http.js'
import { canResume, roomMs, type Link, type Upload } from './link.js'
import type { AudioState, Chunk } from './outgoing.js'

export class RequestLink implements Link {
  readonly over: Promise<void>
  private wake = () => {}

  constructor(private readonly upload: Upload) {
    upload.outgoing.forget()
    this.over = this.run()
  }

  pump(): void {
    this.wake()
  }

  private async run(): Promise<void> {
    const { outgoing } = this.upload
    let pauseMs = 0
    while (!outgoing.isDone) {
      const chunk = outgoing.next()
      if (chunk) pauseMs = await this.send(chunk)
      else if (!outgoing.isBlocked) await this.rest()
      else {
        await this.rest(pauseMs)
        outgoing.state(await this.ask<AudioState>(''))
        pauseMs = roomMs()
      }
      this.upload.changed()
    }
  }

  /** Returns how long to wait before the state is asked for, if there is no room, ms. */
  private async send({ seq, bytes, isLast }: Chunk): Promise<number> {
    const { outgoing } = this.upload
    try {
      const said = await this.ask<{ received_seq: number; window_bytes: number }>(`?seq=${seq}${isLast ? '&last=true' : ''}`, bytes)
      outgoing.received(said.received_seq, said.window_bytes)
      return roomMs()
    } catch (cause) {
      const error = asError(cause)
      if (!canResume(error.code)) throw error
      outgoing.forget()
      return error.code === 'audio_full' ? roomMs(error.retryAfterS) : 0
    }
  }

  private async ask<T>(query: string, bytes?: Uint8Array): Promise<T> {
    const { env, id, signal } = this.upload
    // The core sends JSON only.
    const raw: typeof fetch = (url, init) =>
      env.fetch(url, { ...init, headers: { ...init!.headers, 'content-type': 'application/octet-stream' }, body: bytes as BodyInit })
    const found = await requestJson<T>(
      bytes ? { ...env, fetch: raw } : env, `/v1/generations/${encodeURIComponent(id)}/audio${query}`,
      { method: bytes ? 'POST' : 'GET', signal })
    this.upload.alive()
    return found
  }

  /** Wait until there is more to send; with a time, until then. */
  private async rest(ms?: number): Promise<void> {
    const { env, signal } = this.upload
    if (signal.aborted) throw asError(signal.reason ?? new TailraceError('aborted', 'aborted', { retryable: true }))
    await new Promise<void>((resolve) => {
      const timer = ms === undefined ? undefined : env.clock.setTimeout(() => done(), ms)
      const done = () => {
        env.clock.clearTimeout(timer)
        signal.removeEventListener('abort', done)
        this.wake = () => {}
        resolve()
      }
      signal.addEventListener('abort', done)
      if (ms === undefined) this.wake = done
    })
    if (signal.aborted) throw asError(signal.reason)
  }
}
