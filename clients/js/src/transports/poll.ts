/** Long poll: works through every proxy that passes whole answers. */

import type { Environment } from '../environment.js'
import { broken } from '../errors.js'
import { isEventId, readEvent } from '../events.js'
import { FOREIGN, requestJson } from '../http.js'
import { eventsPath, type ReadRequest, type Transport } from './contract.js'

export const WAIT_MAX_S = 20

export interface Polled {
  events: Record<string, unknown>[]
  last_event_id: string
  done: boolean
}

export class PollTransport implements Transport {
  readonly name = 'poll'

  constructor(private readonly env: Environment) {}

  async read(asked: ReadRequest): Promise<void> {
    let { cursor } = asked
    let hasEnd = false
    for (;;) {
      const polled = await poll(this.env, asked, cursor, Math.min(WAIT_MAX_S, asked.heartbeatS()))
      asked.alive()
      for (const members of polled.events) {
        const event = readEvent(members)
        if (event) asked.event(event)
        hasEnd ||= event?.type === 'end'
      }
      if (hasEnd) return
      if (polled.done) return asked.over()
      cursor = polled.last_event_id
    }
  }

  close(): void {}
}

/** One poll. `waitS` 0 answers at once. */
export async function poll(env: Environment, asked: ReadRequest, cursor: string, waitS: number): Promise<Polled> {
  const path = eventsPath(asked, cursor, `wait=${waitS}`)
  const polled = await requestJson<Polled>(env, path, { signal: asked.signal, extraMs: waitS * 1000 })
  if (!Array.isArray(polled?.events) || !isEventId(polled.last_event_id)) {
    throw broken(FOREIGN)
  }
  return polled
}
