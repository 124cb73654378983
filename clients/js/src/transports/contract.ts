/** The one interface of all transports. */

import type { TailraceEvent } from '../events.js'

export type TransportName = 'websocket' | 'sse' | 'ndjson' | 'poll'

export interface ReadRequest {
  /** The path of the log, without `/events`: `/v1/generations/gen_…`. */
  path: string
  id: string
  cursor: string
  signal: AbortSignal
  /** Take an event; the reading drops repeats. */
  event(event: TailraceEvent): void
  /** Something arrived. `heartbeatS` is what the server announced, if it has. */
  alive(heartbeatS?: unknown): void
  /** The server's heartbeat as far as it is known, s. */
  heartbeatS(): number
  /** The generation has ended, and the cursor is its end. */
  over(): void
}

export interface Transport {
  readonly name: TransportName
  /**
   * Deliver the events after the cursor. Returns when the connection stopped: after `end` or `over`, or
   * broken. Throws TailraceError when it was refused or broke; not retryable: no transport may succeed.
   */
  read(request: ReadRequest): Promise<void>
  close(): void
}

/** The path of a reader's request, with its cursor where that needs no CORS preflight. */
export const eventsPath = (request: ReadRequest, cursor: string, ...query: string[]): string => {
  const all = cursor === '0-0' ? query : [`last_event_id=${cursor}`, ...query]
  return `${request.path}/events${all.length ? '?' : ''}${all.join('&')}`
}
