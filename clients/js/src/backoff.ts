/**
 * How long to wait before the next connection. Without I/O; times are milliseconds.
 *
 * Full jitter: each wait is random between 0 and a ceiling that doubles, so that the readers of a dead
 * node come back spread over time. The ceiling falls back only after real progress (a new event): a
 * server that accepts connections and breaks them does not get a storm.
 */

export const FIRST_MS = 750
/** The ceiling in the first seconds of an outage: a short outage is over for the client soon after its end. */
export const SHORT_OUTAGE_MS = 5_000
export const CEILING_MS = 30_000
export const RETRY_AFTER_MAX_MS = 60_000
/** A longer time between two tries is no outage: the machine has slept, or its clock was set. */
const STEP_MAX_MS = 300_000

export class BackOff {
  private tries = 0
  private outage = 0
  private countedAt: number | undefined

  constructor(private readonly random: () => number) {}

  progress(): void {
    this.tries = 0
    this.alive()
  }

  /** A connection shows signs of life: the outage is over, and the ceiling stays. */
  alive(): void {
    this.outage = 0
    this.countedAt = undefined
  }

  /** How long there has been no connection, as far as the machine was awake. */
  outageMs(now: number): number {
    const step = now - (this.countedAt ?? now)
    if (step > 0 && step < STEP_MAX_MS) this.outage += step
    this.countedAt = now
    return this.outage
  }

  next(now: number, retryAfterS = 0): number {
    const outage = this.outageMs(now)
    const ceiling = Math.min(FIRST_MS * 2 ** Math.min(this.tries, 16), Math.max(SHORT_OUTAGE_MS, outage), CEILING_MS)
    this.tries += 1
    return Math.min(retryAfterS * 1000, RETRY_AFTER_MAX_MS) + this.random() * ceiling
  }
}
