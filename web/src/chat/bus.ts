/**
 * What the page tells other modules of its bundle, such as a panel beside the conversation.
 *
 *   import { bus } from './bus.js'
 *   const off = bus.on('event', ({ generation, id, type, text }) => …)
 *
 * Listeners run synchronously, before the page acts on the event. A listener that throws does not stop the
 * page. Nothing is kept: a listener hears what happens after its `on`. `bus.newest` is the newest answer.
 */

import type { TailraceEvent, TransportName } from 'tailrace'

export interface BusEvents {
  /**
   * An event as it arrived over a connection, for every answer of the open conversation. Repeated events are
   * here too: the page drops them only afterwards. `text` is that of a `token`, otherwise ''. `repeated` says
   * that the page has had this event, or a later one, already.
   */
  event: { generation: string; id: string; type: string; text: string; repeated: boolean; event: TailraceEvent }
  /**
   * A connection for an answer is being opened, has brought its first sign of life, or has stopped without
   * the end of the answer. `reconnects` counts the connections of this answer after the first one.
   */
  connection: { generation: string; transport: TransportName; state: 'opening' | 'live' | 'lost'; reconnects: number }
  /** All text of the answer so far is void. `resets` counts them for this answer. */
  reset: { generation: string; reason: string; resets: number }
  /**
   * The page shows a part of an answer that it has not read as events: after a reload, or for an answer of
   * another tab. The next event comes after `cursor` ('' is the start).
   */
  adopted: { generation: string; cursor: string; text: string; status: string }
  /** Another answer is the newest one of the open conversation; null: the conversation is empty. */
  newest: Newest | null
}

export interface Newest {
  generation: string
  /** `queued`, `running`, `completed`, `cancelled` or `failed`, when this object was made. */
  status: string
  prompt: string
}

type Listener<K extends keyof BusEvents> = (data: BusEvents[K]) => void

class Bus {
  /** The newest answer of the open conversation. */
  newest: Newest | null = null
  private readonly listeners = new Map<keyof BusEvents, Set<Listener<any>>>()

  /** Returns a function that ends the listening. */
  on<K extends keyof BusEvents>(kind: K, listener: Listener<K>): () => void {
    const all = this.listeners.get(kind) ?? new Set()
    this.listeners.set(kind, all.add(listener))
    return () => void all.delete(listener)
  }

  emit<K extends keyof BusEvents>(kind: K, data: BusEvents[K]): void {
    if (kind === 'newest') this.newest = data as Newest | null
    for (const listener of this.listeners.get(kind) ?? []) {
      try {
        listener(data)
      } catch (error) {
        console.error(error)
      }
    }
  }
}

export const bus = new Bus()
