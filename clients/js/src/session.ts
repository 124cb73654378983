/** The generations of a session, also those that another tab or another device starts. */

import type { Answer } from './answer.js'
import { ASYNC_ITERATOR } from './environment.js'
import type { Waker } from './waker.js'

/** How often the listing is read, ms: at random between half of it and all of it. */
export const LOOK_MS = 2_000

export interface SessionEntry {
  id: string
  status: string
  model: string
  prompt: string
  created_at: number
  metadata: Record<string, unknown>
  error: { code: string; message: string; retryable: boolean } | null
}

export interface SessionHost {
  waker: Waker
  random: () => number
  list(name: string, signal?: AbortSignal): Promise<{ generations: SessionEntry[] }>
  attach(id: string, signal?: AbortSignal): Answer
}

export class Session implements AsyncIterable<{ entry: SessionEntry; answer: Answer }> {
  constructor(private readonly host: SessionHost, readonly name: string, private readonly signal?: AbortSignal) {}

  /** The newest generations of the session, at most 100, newest first. */
  async list(): Promise<SessionEntry[]> {
    return (await this.host.list(this.name, this.signal)).generations
  }

  /** The generations from old to new, and then each new one. Ends when the signal aborts, or by `break`. */
  async *[ASYNC_ITERATOR](): AsyncGenerator<{ entry: SessionEntry; answer: Answer }, void, undefined> {
    let known = new Set<string>()
    while (!this.signal?.aborted) {
      const entries = await this.list()
      for (const entry of entries.reverse()) {
        if (!known.has(entry.id)) yield { entry, answer: this.host.attach(entry.id, this.signal) }
      }
      // Only the newest page is read again, so older ids cannot come back.
      known = new Set(entries.map(({ id }) => id))
      const pause = LOOK_MS * (0.5 + this.host.random() / 2)
      await this.host.waker.sleep(pause, this.signal).catch(() => {})
    }
  }
}
