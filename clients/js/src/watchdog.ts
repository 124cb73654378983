/**
 * Decides by the server's heartbeat whether a connection is dead. Without I/O; times are milliseconds.
 *
 * A clock that jumps forward (the machine has slept) makes the connection dead at once, and the client
 * reconnects. A clock that jumps back starts the silence anew.
 */

export const HEARTBEAT_DEFAULT_MS = 15_000
const HEARTBEAT_MAX_MS = 600_000
const GRACE_MS = 1_000

export class Watchdog {
  heartbeatMs = HEARTBEAT_DEFAULT_MS

  constructor(private heardAt: number) {}

  /** `heartbeatS` is what the server announced; any other value keeps the interval. */
  heard(now: number, heartbeatS?: unknown): void {
    this.heardAt = now
    const ms = Number(heartbeatS ?? NaN) * 1000
    if (ms > 0) this.heartbeatMs = Math.min(ms, HEARTBEAT_MAX_MS)
  }

  silenceMs(now: number): number {
    if (now < this.heardAt) this.heardAt = now
    return now - this.heardAt
  }

  /** Two heartbeats are missing. */
  isDead(now: number): boolean {
    return this.silenceMs(now) > 2 * this.heartbeatMs + GRACE_MS
  }

  /** How often to look. */
  get lookMs(): number {
    return Math.min(1_000, this.heartbeatMs / 2)
  }
}
