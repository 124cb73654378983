/**
 * Reads the answers of one conversation: the snapshot of each, and then its events to the end. At most one reading
 * of an answer at a time. Knows no DOM, no listing and no order.
 */

import type { TailraceEvent } from 'tailrace'
import { compareIds } from 'tailrace-source/events.js'
import { bus } from '../bus.js'
import type { PageClient } from '../client.js'
import type { Archive } from '../store/archive.js'
import type { Hooks } from './contract.js'
import { explain } from './explain.js'
import { FewAtOnce } from './few-at-once.js'
import type { Snapshot, Turn } from './turn.js'

const LOADS_MAX = 4
/** Pages of an answer's events; a page has about 1 MiB. */
const EVENT_PAGES_MAX = 8

interface EventPage { events: TailraceEvent[]; last_event_id: string }

export class Readings {
  private readonly loads = new Map<string, Promise<void>>()
  private readonly few = new FewAtOnce(LOADS_MAX)
  private readonly follows = new Set<string>()

  constructor(
    private readonly client: PageClient, private readonly archive: Archive, private readonly session: string,
    private readonly hooks: Hooks, private readonly signal: AbortSignal,
  ) {}

  /** Read the text of a turn, unless it is there. */
  load(turn: Turn): Promise<void> {
    if (turn.isLoaded || turn.status === 'unsent') return Promise.resolve()
    let loading = this.loads.get(turn.id)
    if (!loading) {
      loading = this.few.run(() => this.read(turn)).finally(() => this.loads.delete(turn.id))
      this.loads.set(turn.id, loading)
    }
    return loading
  }

  private async read(turn: Turn): Promise<void> {
    try {
      const snapshot = await this.client.json<Snapshot>(`/v1/generations/${turn.id}`, { signal: this.signal })
      turn.adopt(snapshot)
      const pictures = turn.files // of the snapshot; a `reset` among the events is older
      turn.files = []
      await this.missed(turn)
      turn.files.push(...pictures)
      const { id, cursor, text, status } = turn
      bus.emit('adopted', { generation: id, cursor, text, status })
      this.hooks.changed(turn)
      if (turn.isActive) void this.follow(turn)
      else this.keep(turn)
    } catch (error) {
      if (this.signal.aborted) return
      turn.problem = explain(error)
      this.hooks.changed(turn)
    }
  }

  /** Files, data and progress up to the turn's cursor: the snapshot has only what belongs to the text. */
  private async missed(turn: Turn): Promise<void> {
    let cursor = ''
    for (let page = 0; turn.cursor && page < EVENT_PAGES_MAX; page += 1) {
      const path = `/v1/generations/${turn.id}/events?wait=0${cursor && `&last_event_id=${cursor}`}`
      const { events, last_event_id } = await this.client.json<EventPage>(path, { signal: this.signal })
      for (const event of events) if (compareIds(event.id, turn.cursor) <= 0) turn.beside(event)
      if (!events.length || compareIds(last_event_id, turn.cursor) >= 0) return
      cursor = last_event_id
    }
  }

  /** Read the events after the turn's cursor, to the end. */
  async follow(turn: Turn): Promise<void> {
    if (this.follows.has(turn.id)) return
    const { id } = turn
    this.follows.add(id)
    const { signal } = this
    try {
      await this.client.signedIn(async () => {
        for await (const event of this.client.attach(id, turn.cursor || null, { signal })) this.event(turn, event)
      })
      // Nothing followed the cursor: the end was a part of what the page had adopted.
      if (turn.isActive && !signal.aborted) turn.adopt(await this.client.json<Snapshot>(`/v1/generations/${id}`, { signal }))
      this.keep(turn)
    } catch (error) {
      if (!signal.aborted) turn.problem = explain(error)
    } finally {
      this.follows.delete(id)
      if (!signal.aborted) this.hooks.changed(turn)
    }
  }

  private event(turn: Turn, event: TailraceEvent): void {
    turn.take(event, performance.now())
    if (event.type === 'reset') bus.emit('reset', { generation: turn.id, reason: event.reason, resets: turn.resets })
    this.hooks.changed(turn)
  }

  private keep(turn: Turn): void {
    const { id, prompt, text, model, status, created_at, metadata, rest } = turn
    void this.archive.put({ id, session: this.session, prompt, text, model, status, created_at, metadata, rest })
  }
}
