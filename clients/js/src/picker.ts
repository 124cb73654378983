/**
 * Which transport comes next. Without I/O; times are milliseconds.
 *
 * All answers of a client share one picker. A transport on which nothing arrived is left for a while;
 * a transport that has worked and broke is used again. When all have failed, the network is away and
 * no transport is to blame: the first one is tried again.
 */

import type { TransportName } from './transports/contract.js'

export const AUTO: TransportName[] = ['websocket', 'sse', 'poll']
export const LEFT_FOR_MS = 300_000

export class Picker {
  private leftUntil = new Map<TransportName, number>()

  constructor(private readonly names: TransportName[]) {}

  pick(now: number): TransportName {
    const usable = this.names.find((name) => (this.leftUntil.get(name) ?? 0) <= now)
    if (usable) return usable
    this.leftUntil.clear()
    return this.names[0]
  }

  /** Nothing arrived through this transport, or it holds events back. */
  leave(name: TransportName, now: number): void {
    if (this.names.length > 1) this.leftUntil.set(name, now + LEFT_FOR_MS)
  }
}
