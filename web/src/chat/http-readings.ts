/**
 * Reads over HTTP for all tabs of this browser. A browser opens at most six connections to one host over HTTP/1.1, for
 * all of its tabs together. So one tab reads, and the others hear the events from it; and a further answer is asked for
 * again and again instead of occupying a connection.
 */

import type { Transport, TransportName } from 'tailrace'
import type { Environment } from 'tailrace-source/environment.js'
import { shareTransport } from 'tailrace-source/tabs.js'
import { PollTransport } from 'tailrace-source/transports/poll.js'
import { StreamTransport } from 'tailrace-source/transports/stream.js'

/** Answers that may occupy a connection each. Two connections stay for all other requests. */
const OCCUPIED_MAX = 4
/** How long a further answer waits for its next event, s, before it gives its connection to others. */
const SHORT_WAIT_S = 1
/** Tabs with another version of this module do not share with this one. */
const VERSION = 1

/** `owner` is in the name of what is shared: tabs of another key or user read by themselves. */
export function overHttp(name: Exclude<TransportName, 'websocket'>, owner: string, env: Environment): Transport {
  const bounded = () => new Bounded(name, env)
  try {
    return shareTransport(`page ${VERSION} ${name} ${owner}`, bounded)
  } catch {
    return bounded() // over plain http from another machine there are no locks
  }
}

class Bounded implements Transport {
  private readonly wanted: Transport
  private readonly polling: PollTransport
  private occupied = 0

  constructor(readonly name: TransportName, env: Environment) {
    this.polling = new PollTransport(env)
    this.wanted = name === 'sse' || name === 'ndjson' ? new StreamTransport(name, env) : this.polling
  }

  async read(asked: Parameters<Transport['read']>[0]): Promise<void> {
    if (this.occupied >= OCCUPIED_MAX) return this.polling.read({ ...asked, heartbeatS: () => SHORT_WAIT_S })
    this.occupied += 1
    try {
      await this.wanted.read(asked)
    } finally {
      this.occupied -= 1
    }
  }

  close(): void {
    this.wanted.close()
  }
}
