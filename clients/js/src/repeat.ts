/** When a request is repeated. Only for requests that may be repeated. */

import { BackOff } from './backoff.js'
import type { Environment } from './environment.js'
import { asError } from './errors.js'
import type { Waker } from './waker.js'

/** A server that has no room for a request is asked again for so long, ms. */
const FULL_MS = 30_000

/** Who repeats. `giveUpMs`: without any answer for so long, the last error is thrown. */
export interface Repeater {
  env: Environment
  waker: Waker
  giveUpMs: number
}

/** Repeat a request until a node has answered it. */
export async function repeat<T>(by: Repeater, send: () => Promise<T>, signal?: AbortSignal, fullMs?: number): Promise<T> {
  const backOff = new BackOff(by.env.random)
  for (;;) {
    try {
      return await send()
    } catch (cause) {
      await pause(by, backOff, cause, signal, fullMs)
    }
  }
}

/** Wait before the next try, or throw: it is not worth one. */
export async function pause(
  { env, waker, giveUpMs }: Repeater, backOff: BackOff, cause: unknown, signal?: AbortSignal, fullMs = FULL_MS,
): Promise<void> {
  const error = asError(cause)
  const now = env.clock.now()
  const ms = backOff.next(now, error.retryAfterS)
  const isFull = error.status === 429 || error.code === 'queue_full'
  const limitMs = isFull ? Math.min(fullMs, giveUpMs) : giveUpMs
  if (signal?.aborted || !error.retryable || backOff.outageMs(now) > limitMs) throw error
  env.onRetry?.(error)
  await waker.sleep(ms, signal)
}
