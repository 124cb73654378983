/**
 * "Break it": buttons that break a part of the running system, the page's own count of what arrived, and a timeline
 * of what happened. Shown only where the node can be broken, which is under `tailrace up` on this machine.
 */

import './break.css'
import { bus, type BusEvents } from '../bus.js'
import type { PageClient } from '../client.js'
import { ofBrowser } from '../store/memory.js'
import { byId, h, setText } from '../view/dom.js'
import { Control, sha256 } from './control.js'
import { Counts } from './counts.js'
import { Strip } from './strip.js'

const FOLDED = 'tailrace.break-folded'
const ANSWERS_MAX = 20
const LOOK_MS = 500
/** After a fault the page looks for notes for so long: a frozen worker is thawed after two leases. */
const LOOK_FOR_MS = 15_000
const PAINT_MS = 120
const ROWS_MAX = 60
/** A connection that is lost so soon after the cut was lost by it. */
const CUT_MS = 1_000
const TITLES = { websocket: 'WebSocket', sse: 'server-sent events', ndjson: 'an HTTP stream', poll: 'long poll' }
const OF_AN_ANSWER = ['worker', 'freeze', 'redis', 'slot']
/** A fault waits so long for a prompt that no node has accepted yet, ms. */
const ACCEPTED_MS = 10_000
/** A larger attempt is a time: Redis was restarted. docs/protocol.md, "Event ids". */
const ATTEMPTS_MAX = 1e9

interface Row { atMs: number; text: string; kind: 'fault' | 'page' | 'good' }

class Watched {
  readonly counts = new Counts()
  readonly rows: Row[] = []
  readonly beganMs = Date.now()
  status = 'queued'
  lostMs = 0
  check = ''
  isExact: boolean | null = null

  get isRunning(): boolean {
    return this.isUnsent || this.status === 'queued' || this.status === 'running'
  }

  get isUnsent(): boolean {
    return this.status === 'unsent'
  }
}

export class BreakPanel {
  private readonly control: Control
  private readonly answers = new Map<string, Watched>()
  private readonly strip = new Strip(byId('break-strip'), byId('break-legend'))
  private newest = ''
  private cutMs = 0
  private lookUntilMs = 0
  private isLooking = false
  private paintTimer = 0

  constructor(private readonly client: PageClient) {
    this.control = new Control(client)
    for (const button of byId('break').querySelectorAll<HTMLButtonElement>('[data-break]')) {
      button.addEventListener('click', () => void this.break(button.dataset.break ?? ''))
    }
    bus.on('newest', (newest) => this.choose(newest?.generation ?? '', newest?.status))
    bus.on('event', (event) => this.take(event))
    bus.on('connection', (change) => this.connection(change))
    bus.on('adopted', ({ generation, cursor, text, status }) => {
      const watched = this.watch(generation)
      watched.counts.adopt(cursor, text)
      watched.status = status
      this.paintSoon()
    })
    const fold = byId('break-fold')
    const show = (isFolded: boolean) => {
      byId('break').classList.toggle('folded', isFolded)
      fold.setAttribute('aria-expanded', String(!isFolded))
    }
    show(ofBrowser.get(FOLDED) === 'yes')
    fold.addEventListener('click', () => {
      const isFolded = !byId('break').classList.contains('folded')
      ofBrowser.set(FOLDED, isFolded ? 'yes' : '')
      show(isFolded)
    })
    void this.appear()
  }

  /** Show the panel, if this node can be broken. */
  private async appear(): Promise<void> {
    if ((await this.control.look()) === null) return
    byId('break').hidden = false
    for (const button of byId('break').querySelectorAll<HTMLButtonElement>('[data-break]')) {
      const what = button.dataset.break ?? ''
      button.hidden = what !== 'connection' && !this.control.actions.includes(what)
    }
    this.paint()
  }

  private watch(generation: string): Watched {
    const known = this.answers.get(generation)
    if (known) return known
    const made = new Watched()
    this.answers.set(generation, made)
    for (const old of [...this.answers.keys()].slice(0, -ANSWERS_MAX)) this.answers.delete(old)
    return made
  }

  private choose(generation: string, status = 'queued'): void {
    this.newest = generation
    if (generation && !this.answers.has(generation)) this.watch(generation).status = status
    if (byId('break').hidden) void this.appear() // signed in since
    this.allow()
    this.paintSoon()
  }

  private take({ generation, id, type, text, event }: BusEvents['event']): void {
    const watched = this.watch(generation)
    const { counts } = watched
    const before = counts.attempt
    counts.note({ id, type, text }, Date.now())
    if (watched.status === 'queued') watched.status = 'running'
    if (type === 'start' && counts.attempt > before && before > 0) {
      const why = counts.attempt > ATTEMPTS_MAX ? ' (a time, because Redis was restarted)' : ''
      this.row(generation, `another worker goes on: attempt ${counts.attempt}${why}, at ${id}`, 'good')
    }
    if (type === 'reset') this.row(generation, 'the server says: forget the text, it begins again', 'page')
    if (event.type === 'end') {
      watched.status = event.status
      void this.compare(generation)
      return this.paint() // at once: somebody may look at the numbers now
    }
    this.paintSoon()
  }

  private connection({ generation, state, reconnects, transport }: BusEvents['connection']): void {
    const watched = this.watch(generation)
    if (state === 'lost' && watched.isRunning) {
      // Each failed try is told here. The reader has lost the connection once.
      if (!watched.lostMs && Date.now() - this.cutMs > CUT_MS) this.row(generation, 'this page has lost its connection', 'page')
      watched.lostMs ||= Date.now()
    } else if (state === 'live' && reconnects > 0 && watched.lostMs) {
      const waitedS = ((Date.now() - watched.lostMs) / 1000).toFixed(1)
      watched.lostMs = 0
      this.row(generation, `connected again over ${TITLES[transport]} after ${waitedS} s, and goes on where it was`, 'good')
    }
  }

  private async break(what: string): Promise<void> {
    this.say('')
    const generation = OF_AN_ANSWER.includes(what) ? await this.accepted() : this.newest
    const watched = this.answers.get(generation)
    if (what === 'connection') {
      this.cutMs = Date.now()
      if (generation) this.row(generation, 'you cut the connection of this page', 'fault')
      this.client.cut()
      return
    }
    if (OF_AN_ANSWER.includes(what) && !generation) return this.say('Ask something first.')
    this.lookUntilMs = Date.now() + LOOK_FOR_MS
    void this.keepLooking()
    const isWanted = () => !OF_AN_ANSWER.includes(what) || watched?.isRunning === true
    const why = await this.control.break(what, generation, isWanted)
    if (why) this.say(`Not done: ${why}.`)
  }

  /** The newest answer, once a node has accepted its prompt. */
  private async accepted(): Promise<string> {
    const until = Date.now() + ACCEPTED_MS
    while (this.answers.get(this.newest)?.isUnsent && Date.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, PAINT_MS))
    }
    return this.newest
  }

  private async keepLooking(): Promise<void> {
    if (this.isLooking) return
    this.isLooking = true
    while (Date.now() < this.lookUntilMs) {
      for (const note of (await this.control.look()) ?? []) {
        const kind = /killed|frozen|moved/.test(note.text) ? 'fault' : 'good'
        if (this.newest) this.row(this.newest, note.text, kind, note.at_ms)
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
    }
    this.isLooking = false
  }

  /** Compare the text that arrived with the text that the demo must give, or else with the log's. */
  private async compare(generation: string): Promise<void> {
    const watched = this.watch(generation)
    if (watched.status !== 'completed') return
    const { text } = watched.counts
    const own = await sha256(text)
    const known = await this.control.knownText(generation)
    let wanted = known?.sha256 ?? null
    let source = 'the demo’s known text'
    if (known && wanted === null) {
      const logText = await this.control.logText(generation)
      wanted = logText === null ? null : await sha256(logText)
      source = 'the log'
    }
    if (wanted === null) return
    watched.isExact = wanted === own
    const size = `${text.length.toLocaleString('en')} characters`
    watched.check = watched.isExact
      ? `${size}, exactly ${source} (SHA-256 ${own.slice(0, 8)}…)`
      : `${size}, not ${source}: ${own.slice(0, 8)}… instead of ${wanted.slice(0, 8)}…`
    this.paintSoon()
  }

  private row(generation: string, text: string, kind: Row['kind'], atMs = Date.now()): void {
    const { rows } = this.watch(generation)
    rows.push({ atMs, text, kind })
    rows.sort((a, b) => a.atMs - b.atMs)
    if (rows.length > ROWS_MAX) rows.shift()
    this.paintSoon()
  }

  private say(text: string): void {
    setText(byId('break-problem'), text)
  }

  private paintSoon(): void {
    if (byId('break').hidden) return
    this.paintTimer ||= window.setTimeout(() => this.paint(), PAINT_MS)
  }

  private paint(): void {
    clearTimeout(this.paintTimer)
    this.paintTimer = 0
    const watched = this.answers.get(this.newest)
    const counts = watched?.counts
    for (const name of ['received', 'lost', 'repeated', 'disordered'] as const) {
      setText(byId(`count-${name}`), String(counts?.[name] ?? 0))
      byId(`count-${name}`).classList.toggle('bad', name !== 'received' && (counts?.[name] ?? 0) > 0)
    }
    setText(byId('longest-wait'), `${((counts?.longestWait ?? 0) / 1000).toFixed(1)} s`)
    const check = watched?.check ?? ''
    setText(byId('text-check'), check)
    byId('text-check').dataset.exact = String(watched?.isExact ?? '')
    this.allow()
    this.paintRows(watched)
    this.strip.draw(counts?.arrivals ?? [], watched?.rows.filter(({ kind }) => kind === 'fault').map(({ atMs }) => atMs) ?? [])
  }

  private allow(): void {
    const isRunning = this.answers.get(this.newest)?.isRunning === true
    for (const button of byId('break').querySelectorAll<HTMLButtonElement>('[data-break]')) {
      const isAllowed = isRunning || !['worker', 'freeze'].includes(button.dataset.break ?? '')
      if (button.disabled === isAllowed) button.disabled = !isAllowed
    }
  }

  private paintRows(watched: Watched | undefined): void {
    const list = byId('break-rows')
    const rows = watched?.rows ?? []
    byId('break-what').hidden = rows.length === 0
    const wanted = rows.map(({ atMs, text, kind }) => {
      const after = Math.max(0, (atMs - (watched?.beganMs ?? atMs)) / 1000).toFixed(1)
      return { time: `${after} s`, text, kind }
    })
    if (list.dataset.shown === JSON.stringify(wanted)) return
    list.dataset.shown = JSON.stringify(wanted)
    list.replaceChildren(...wanted.map(({ time, text, kind }) =>
      h('li', { class: kind }, h('time', {}, time), h('span', {}, text))))
    list.scrollTop = list.scrollHeight
  }
}
