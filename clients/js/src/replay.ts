/**
 * Read the `data` of server-sent events to its end, over as many connections as that takes.
 *
 * For the adapters, whose dialects have no event id of their own: `open` asks for the rest, and `take`
 * says whether a piece is new.
 */

import { BackOff } from './backoff.js'
import { TailraceError, asError, broken, reasonOf } from './errors.js'
import type { Clock } from './environment.js'
import type { Waker } from './waker.js'
import { Watchdog } from './watchdog.js'

export interface Replay {
  clock: Clock
  waker: Waker
  random: () => number
  giveUpMs: number
  signal: AbortSignal
  /** Open a connection; undefined: nothing follows. Throws TailraceError. */
  open(signal: AbortSignal): Promise<Response | undefined>
  /** Take the data of one event; returns whether it is new. */
  take(data: string): boolean
  isDone(): boolean
}

export async function replay(asked: Replay): Promise<void> {
  const { clock, signal } = asked
  const backOff = new BackOff(asked.random)
  while (!asked.isDone()) {
    if (signal.aborted) throw reasonOf(signal)
    let error: TailraceError
    try {
      if (!(await readOnce(asked, backOff))) return
      error = broken('The stream broke off.')
    } catch (cause) {
      error = asError(cause)
    }
    if (signal.aborted) throw reasonOf(signal)
    if (asked.isDone()) return
    if (!error.retryable) throw error
    const pause = backOff.next(clock.now(), error.retryAfterS)
    if (backOff.outageMs(clock.now()) > asked.giveUpMs) throw error
    await asked.waker.sleep(pause, signal)
  }
}

/** Returns false when nothing follows. */
async function readOnce(asked: Replay, backOff: BackOff): Promise<boolean> {
  const { clock, signal } = asked
  const stopper = new AbortController()
  const abort = () => stopper.abort(reasonOf(signal))
  signal.addEventListener('abort', abort)
  const watchdog = new Watchdog(clock.now())
  let timer: unknown
  const look = () => {
    timer = clock.setTimeout(() => {
      if (watchdog.isDead(clock.now())) {
        return stopper.abort(new TailraceError('stalled', 'Nothing arrived for two heartbeats.', { retryable: true }))
      }
      look()
    }, watchdog.lookMs)
  }
  look()
  try {
    const response = await asked.open(stopper.signal)
    if (!response?.body) return false
    watchdog.heard(clock.now(), response.headers.get('x-heartbeat-s') ?? undefined)
    const reader = response.body.getReader()
    const decoder = new TextDecoder()
    let rest = ''
    for (;;) {
      const { value, done } = await reader.read()
      if (done) return true
      watchdog.heard(clock.now())
      backOff.alive()
      const blocks = (rest + decoder.decode(value, { stream: true }).replace(/\r/g, '')).split('\n\n')
      rest = blocks.pop()!
      for (const block of blocks) {
        const data = dataOf(block)
        if (data !== undefined && asked.take(data)) backOff.progress()
      }
      if (asked.isDone()) {
        reader.cancel().catch(() => {})
        return true
      }
    }
  } finally {
    clock.clearTimeout(timer)
    signal.removeEventListener('abort', abort)
    stopper.abort()
  }
}

function dataOf(block: string): string | undefined {
  const lines = block.split('\n').filter((line) => line.startsWith('data:'))
  return lines.length ? lines.map((line) => line.slice(line[5] === ' ' ? 6 : 5)).join('\n') : undefined
}

export function parseData(data: string): any {
  try {
    return JSON.parse(data)
  } catch (cause) {
    throw broken('A piece of the stream is not JSON.', cause)
  }
}

/** Statuses that a proxy or a node in trouble gives: the same request may succeed later. */
export const isPassing = (status: number): boolean => status === 502 || status === 503 || status === 504
