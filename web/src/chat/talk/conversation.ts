/**
 * The open conversation: the answers of one session, those that other tabs and other people start, and the
 * prompts that no node has accepted yet. Knows no DOM. After each change it calls its hooks.
 */

import { bus } from '../bus.js'
import type { PageClient } from '../client.js'
import type { Archive } from '../store/archive.js'
import { randomName } from '../store/memory.js'
import { outbox, type Unsent } from '../store/outbox.js'
import { arrange, type Place } from './arrange.js'
import type { Asked, Hooks } from './contract.js'
import { explain } from './explain.js'
import { historyOf } from './history.js'
import { inOrder, placeOf, sightOf } from './listing.js'
import { Readings } from './readings.js'
import { Turn, type Entry, type PageNote } from './turn.js'

/** Between two looks at the session's listing, ms; and while nobody sees the page. */
const LOOK_MS = 1_500
const LOOK_HIDDEN_MS = 15_000
/** In a conversation to which nobody has added anything for a while. */
const LOOK_QUIET_MS = 4_000
const QUIET_AFTER_MS = 60_000
/** A look that takes longer means that the server cannot be reached. */
const LATE_MS = 2_500
/** A prompt that waits longer says so. */
const UNSENT_MS = 1_000
/** Older pages of a conversation; a page has 100 answers. */
const PAGES_MAX = 20
/** So many answers are read at once. Older ones are read when they come near the window. */
const NEWEST = 10
/** So many turns before a prompt are read, so that they can go along. */
const HISTORY_TURNS = 50

interface Listing { generations: Entry[]; next_before: string | null }

export interface Step { turn: Turn; place: Place }

export class Conversation {
  readonly turns = new Map<string, Turn>()
  private readonly chosen = new Map<string, string>()
  /** Of those in `chosen`: nobody chose them, an edit holds them. */
  private readonly held: string[] = []
  private readonly leaving = new AbortController()
  private readonly deliveries = new Map<string, AbortController>()
  private readonly readings: Readings
  private wake = () => {}
  private isWhole = false
  /** The order as it was computed last; undefined: something has changed since. */
  private steps: Step[] | undefined
  private changedAt = performance.now()

  constructor(
    private readonly client: PageClient, private readonly archive: Archive, readonly session: string,
    private readonly hooks: Hooks,
  ) {
    this.readings = new Readings(client, archive, session, hooks, this.leaving.signal)
  }

  /** Never returns before `leave`. */
  async open(): Promise<void> {
    for (const kept of await this.archive.session(this.session)) {
      if (this.turns.has(kept.id)) continue
      const turn = new Turn(kept)
      const { text, model, metadata, rest } = kept
      Object.assign(turn, { text, model, metadata, isLoaded: rest !== undefined }, rest)
      this.turns.set(turn.id, turn)
    }
    for (const unsent of outbox.of(this.session)) this.take(unsent)
    this.arranged()
    while (!this.leaving.signal.aborted) {
      await this.look()
      await new Promise<void>((resolve) => {
        this.wake = resolve
        const isQuiet = performance.now() - this.changedAt > QUIET_AFTER_MS
        setTimeout(resolve, document.hidden ? LOOK_HIDDEN_MS : isQuiet ? LOOK_QUIET_MS : LOOK_MS)
      })
    }
  }

  leave(): void {
    this.leaving.abort()
    this.wake()
  }

  /** Look for new answers now. */
  lookNow(): void {
    this.wake()
  }

  /** The turns in the order of the conversation. Those without a place are older versions of a prompt. */
  path(): Step[] {
    return (this.steps ??= this.inPlace())
  }

  private inPlace(): Step[] {
    // The clock of this machine may be wrong: a prompt that no node has accepted is the newest.
    const isUnsent = (turn: Turn) => Number(turn.status === 'unsent')
    const links = [...this.turns.values()].sort((a, b) => isUnsent(a) - isUnsent(b) || a.created_at - b.created_at)
    return arrange(links, this.chosen).map((place) => ({ turn: this.turns.get(place.id)!, place }))
  }

  get active(): Turn[] {
    return this.path().map(({ turn }) => turn).filter(({ isActive }) => isActive)
  }

  choose(turn: Turn, step: number): void {
    const place = this.path().find(({ place: { id } }) => id === turn.id)?.place
    const wanted = place?.versions[place.versions.indexOf(turn.id) + step]
    if (!place || !wanted) return
    this.chosen.set(place.versions[0], wanted)
    this.arranged()
  }

  /** Keep this turn in its place, whatever others ask: somebody edits its prompt. */
  hold(turn: Turn): void {
    const path = this.path()
    for (const { place: { id, versions } } of path.slice(0, path.findIndex((step) => step.turn === turn) + 1)) {
      if (this.chosen.has(versions[0])) continue
      this.chosen.set(versions[0], id)
      this.held.push(versions[0])
    }
  }

  release(): void {
    for (const first of this.held.splice(0)) this.chosen.delete(first)
    this.arranged()
  }

  async send(asked: Asked): Promise<void> {
    const path = this.path().map(({ turn }) => turn)
    const at = asked.replaced ? path.indexOf(asked.replaced) : -1
    const before = at < 0 ? path : path.slice(0, at)
    const key = randomName()
    const page = {
      key, after: before.at(-1)?.id ?? '', replaces: asked.replaced?.id ?? '', title: asked.title, files: asked.files,
    }
    const turn = new Turn({ id: key, prompt: asked.prompt, status: 'unsent', created_at: Date.now() / 1000 })
    Object.assign(turn, { metadata: { page }, content: Array.isArray(asked.content) ? asked.content : undefined, isLoaded: true, sentAt: performance.now() })
    this.turns.set(key, turn)
    if (asked.replaced) this.chosen.delete(this.firstVersion(asked.replaced))
    this.arranged()
    await Promise.allSettled(before.slice(-HISTORY_TURNS).map((each) => this.readings.load(each)))
    const content = asked.content ?? asked.prompt
    const unsent: Unsent = {
      key, session: this.session, prompt: asked.prompt, createdAt: turn.created_at,
      body: {
        messages: [...historyOf(before), { role: 'user', content }], model: asked.model || undefined,
        session: this.session, metadata: { page },
      },
    }
    outbox.put(unsent)
    await this.deliver(unsent, turn)
  }

  /** What the metadata of a recording says about its place. */
  noteOfRecording(title: string): PageNote {
    return { key: randomName(), after: this.path().at(-1)?.turn.id ?? '', title, recording: true }
  }

  /** A recording has a generation: show the transcript. */
  recorded(id: string, page: PageNote): void {
    if (this.turns.has(id)) return // a look at the listing was first
    const turn = new Turn({ id, prompt: '', created_at: this.newestTime() })
    Object.assign(turn, { metadata: { page }, isLoaded: true, sentAt: performance.now() })
    this.turns.set(id, turn)
    this.arranged()
    this.hooks.changed(turn)
    void this.readings.follow(turn)
    this.hooks.started()
  }

  /** Send again a prompt that was refused. */
  async sendAgain(turn: Turn): Promise<void> {
    const unsent = outbox.of(this.session).find(({ key }) => key === turn.note.key)
    turn.problem = ''
    turn.isLate = false
    this.hooks.changed(turn)
    if (unsent) await this.deliver(unsent, turn)
  }

  /** Try again to read an answer that could not be read. */
  async readAgain(turn: Turn): Promise<void> {
    turn.problem = ''
    turn.isLoaded = false
    this.hooks.changed(turn)
    await this.readings.load(turn)
  }

  discard(turn: Turn): void {
    const key = turn.note.key ?? turn.id
    this.deliveries.get(key)?.abort()
    outbox.remove(key)
    this.turns.delete(turn.id)
    this.arranged()
  }

  /** End what is being answered. Returns the prompt of a turn that had not been sent. */
  stop(): string {
    let prompt = ''
    for (const turn of this.active) {
      if (turn.status === 'unsent') {
        prompt = turn.prompt
        this.discard(turn)
      } else {
        void this.client.signedIn(() => this.client.cancel(turn.id)).catch((error) => this.hooks.problem(explain(error)))
      }
    }
    return prompt
  }

  /** Read the text of a turn, unless it is there. */
  load(turn: Turn): Promise<void> {
    return this.readings.load(turn)
  }

  private async look(): Promise<void> {
    const { signal } = this.leaving
    const late = setTimeout(() => this.hooks.reachable(false), LATE_MS)
    try {
      let before = ''
      let isNew = false
      const found = new Set<string>()
      for (let page = 0; page < (this.isWhole ? 1 : PAGES_MAX); page += 1) {
        const path = `/v1/sessions/${encodeURIComponent(this.session)}${before && `?before=${before}`}`
        const { generations, next_before } = await this.client.json<Listing>(path, { signal })
        if (signal.aborted) return
        for (const entry of inOrder(generations)) {
          found.add(entry.id)
          isNew = this.list(entry) || isNew
        }
        before = next_before ? encodeURIComponent(next_before) : ''
        if (isNew) this.arranged()
        if (!page) for (const { turn } of this.path().slice(-NEWEST)) void this.readings.load(turn)
        if (!before) break
      }
      if (!this.isWhole) this.missing(found)
      this.isWhole = true
      this.hooks.reachable(true)
    } catch (error) {
      if (!signal.aborted) this.hooks.problem(explain(error))
    } finally {
      clearTimeout(late)
    }
  }

  /** Returns whether the turn is new, or may have another place: the server's time counts. */
  private list(entry: Entry): boolean {
    const page = entry.metadata?.page as { key?: string } | undefined
    const mine = page?.key ? this.turns.get(page.key) : undefined
    if (mine && mine.id !== entry.id) return this.accepted(mine, entry.id)
    const known = this.turns.get(entry.id)
    if (known) {
      const wasActive = known.isActive
      const was = sightOf(known)
      const stood = placeOf(known)
      known.isArchived = false
      known.list(entry)
      if (sightOf(known) !== was) this.hooks.changed(known)
      if (known.isLoaded && wasActive) void this.readings.follow(known)
      return placeOf(known) !== stood
    }
    const turn = new Turn(entry)
    turn.list(entry)
    this.turns.set(turn.id, turn)
    if (turn.isActive) void this.readings.load(turn)
    this.hooks.started()
    return true
  }

  /** What this browser has kept, and the server has not. */
  private missing(found: Set<string>): void {
    for (const turn of this.turns.values()) {
      if (found.has(turn.id) || turn.status === 'unsent') continue
      turn.isArchived = turn.isLoaded = true
      if (turn.isActive) turn.status = 'cancelled'
      this.hooks.changed(turn)
    }
    this.arranged()
  }

  private take(unsent: Unsent): void {
    const turn = new Turn({ id: unsent.key, prompt: unsent.prompt, status: 'unsent', created_at: unsent.createdAt })
    const messages = unsent.body.messages as { content: unknown }[]
    const content = messages.at(-1)?.content
    Object.assign(turn, { metadata: unsent.body.metadata, content: Array.isArray(content) ? content : undefined, isLoaded: true, isLate: true })
    this.turns.set(turn.id, turn)
    void this.deliver(unsent, turn)
  }

  private async deliver(unsent: Unsent, turn: Turn): Promise<void> {
    const stopper = new AbortController()
    this.deliveries.set(unsent.key, stopper)
    const late = setTimeout(() => {
      turn.isLate = true
      this.hooks.changed(turn)
    }, UNSENT_MS)
    try {
      const { signal } = stopper
      const answer = await this.client.signedIn(
        () => this.client.generate({ ...(unsent.body as object), idempotencyKey: unsent.key, signal }))
      if (this.turns.has(unsent.key)) this.accepted(turn, answer.id)
      this.hooks.started()
    } catch (error) {
      if (stopper.signal.aborted) return
      turn.problem = explain(error)
      this.hooks.changed(turn)
    } finally {
      clearTimeout(late)
      this.deliveries.delete(unsent.key)
    }
  }

  /** A node has accepted the prompt of this turn. */
  private accepted(turn: Turn, id: string): boolean {
    const key = turn.id
    outbox.remove(key)
    this.turns.delete(key)
    turn.created_at = this.newestTime()
    turn.id = id
    turn.status = 'queued'
    turn.problem = ''
    this.turns.set(id, turn)
    this.arranged()
    this.hooks.changed(turn)
    void this.readings.follow(turn)
    return true
  }

  /** The time of a new turn, until the listing has the server's. */
  private newestTime(): number {
    return Math.max(0, ...[...this.turns.values()].filter(({ status }) => status !== 'unsent').map((each) => each.created_at))
  }

  private firstVersion(turn: Turn): string {
    return this.path().find(({ place: { id } }) => id === turn.id)?.place.versions[0] ?? ''
  }

  private arranged(): void {
    this.steps = undefined
    const last = this.path().at(-1)?.turn
    const isSame = (bus.newest?.generation ?? '') === (last?.id ?? '')
    this.changedAt = performance.now()
    this.hooks.arranged()
    if (!isSame) bus.emit('newest', last ? { generation: last.id, status: last.status, prompt: last.prompt } : null)
  }
}
