/** The story of one generation: a time axis with a lane for each process, its events, its log, and what to do. */

import { Tailrace } from 'tailrace'
import { h, svg, type Child } from './dom.js'
import { Refused, json, key, post } from './feed.js'
import { clock, count, seconds } from './format.js'

interface Moment { at: number; what: string; worker?: string; node?: string; attempt?: number; [member: string]: any }

const REFRESH_MS = 2_000
// Refreshes after the end: the worker and the nodes of the readers write their last moments after it.
const LATE_REFRESHES = 4
const LANE_PX = 30
const TEXT_MAX = 200_000
const WORDS: Record<string, string> = {
  accepted: 'accepted', queued: 'queued', begun: 'attempt begun', takeover: 'taken over', connected: 'upstream connected',
  first_reasoning: 'first reasoning', first_token: 'first token', gap: 'gap', reset: 'reset', readers: 'readers',
  cancel_requested: 'cancel requested', attempt_ended: 'attempt ended', released: 'released', end: 'end',
}
const HIDDEN = new Set(['at', 'what', 'worker', 'node'])

export interface Deeds { cancel(id: string): Promise<void>; notice(text: string): void; closed(): void; open(id: string): void }

export class Story {
  private id = ''
  private timer = 0
  private late = 0
  private watching: AbortController | null = null
  private body = h('div', { class: 'body' })
  private output = h('div', { class: 'output' })

  constructor(private readonly place: HTMLElement, private readonly deeds: Deeds) {
    place.addEventListener('keydown', (event) => { if (event.key === 'Escape') this.close() })
  }

  async open(id: string): Promise<void> {
    this.stop()
    this.id = id
    this.late = 0
    this.output.replaceChildren()
    this.body.replaceChildren(h('p', { class: 'note' }, 'reading …'))
    this.place.dataset.id = id
    const close = h('button', { type: 'button', class: 'close', 'aria-label': 'Close the story', onclick: () => this.close() }, '×')
    this.place.replaceChildren(h('header', {}, h('h2', {}, 'Story'), h('code', {}, id), close), this.body, this.output)
    this.place.hidden = false
    close.focus()
    await this.refresh()
  }

  close(): void {
    this.stop()
    this.id = ''
    this.place.hidden = true
    delete this.place.dataset.id
    this.deeds.closed()
  }

  private stop(): void {
    clearTimeout(this.timer)
    this.watching?.abort()
    this.watching = null
  }

  private async refresh(): Promise<void> {
    clearTimeout(this.timer)
    const id = this.id
    try {
      const path = `/v1/console/generations/${encodeURIComponent(id)}`
      const [facts, moments] = await Promise.all([json(path), this.moments(id)])
      if (id !== this.id) return
      this.draw(facts, moments)
      if (!facts.ended_at || this.late++ < LATE_REFRESHES) this.timer = window.setTimeout(() => this.refresh(), REFRESH_MS)
    } catch (error) {
      if (id !== this.id) return
      const text = error instanceof Refused && error.status === 404 ? 'There is no generation with this id: it was deleted, or kept no longer.' : String((error as Error).message)
      this.body.replaceChildren(h('p', { class: 'note', role: 'alert' }, text))
    }
  }

  private async moments(id: string): Promise<Moment[]> {
    try {
      return (await json(`/v1/generations/${encodeURIComponent(id)}/timeline`)).data
    } catch (error) {
      if (error instanceof Refused && [404, 405, 410].includes(error.status)) return []
      throw error
    }
  }

  private draw(facts: any, moments: Moment[]): void {
    const button = (text: string, test: string, deed: () => unknown, isOff = false) =>
      h('button', { type: 'button', 'data-test': test, disabled: isOff, onclick: deed, class: test === 'cancel' ? 'danger' : null }, text)
    const ended = Boolean(facts.ended_at)
    const why = facts.may_read ? null : h('p', { class: 'note' }, 'Your key has no scope “content”: texts of prompts and answers are not shown.')
    const error = facts.error ? `${facts.error.code}${facts.error.message ? `: ${facts.error.message}` : ''}` : null
    const list: [string, Child][] = [
      ['State', h('span', { class: `badge ${facts.status}` }, facts.status)], ['Owner', facts.owner], ['Model', facts.model],
      ['Attempt', String(facts.attempt)], ['Accepted', clock(facts.created_at * 1000)], ['Error', error], ['Session', facts.session],
      ['Prompt', facts.may_read ? String(facts.prompt).slice(0, 400) : null],
    ]
    this.body.replaceChildren(
      h('div', { class: 'deeds' },
        button('Watch live', 'watch', () => this.watch(), !facts.may_read),
        button('Raw log', 'log', () => this.log('')),
        button('Arguments', 'arguments', () => this.asked(), !facts.may_read),
        button('Run again', 'replay', () => this.replay(), !facts.may_read),
        button('Cancel', 'cancel', () => this.deeds.cancel(this.id).then(() => this.refresh()), ended)),
      h('dl', {}, ...list.filter(([, value]) => value).flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)])),
      ...(why ? [why] : []),
      moments.length ? axis(moments, ended) : h('p', { class: 'note' }, 'This server keeps no timeline.'),
      h('ol', { class: 'moments' }, ...moments.map((each) => line(each, moments[0]!.at))))
  }

  /** Follow the answer with Tailrace's own client: it resumes over lost connections, as every reader does. */
  private async watch(): Promise<void> {
    this.watching?.abort()
    const own = this.watching = new AbortController()
    const text = h('pre', { class: 'live', 'data-test': 'live', tabindex: 0, 'aria-label': 'The answer' })
    const state = h('p', { class: 'note', role: 'status' }, 'watching')
    this.output.replaceChildren(h('h3', {}, 'Live'), state, text)
    try {
      const client = new Tailrace({ url: location.origin, ...(key() ? { token: () => key() } : {}) })
      const answer = client.attach(this.id, undefined, { signal: own.signal })
      for await (const event of answer as AsyncIterable<any>) {
        if (event.type === 'reset') text.textContent = ''
        if (event.type === 'token') text.append(event.text)
        if (event.type === 'end') state.textContent = `ended: ${event.status}`
      }
    } catch (error) {
      if (!own.signal.aborted) state.textContent = String((error as Error).message)
    }
  }

  /** What the backend was asked: messages and parameters. */
  private async asked(): Promise<void> {
    this.watching?.abort()
    const found = await json(`/v1/console/generations/${encodeURIComponent(this.id)}/request`)
    const text = JSON.stringify(found, null, 2)
    const shown = text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}\n… ${count(text.length - TEXT_MAX)} more characters` : text
    this.output.replaceChildren(h('h3', {}, 'Arguments'), h('pre', { class: 'live', 'data-test': 'request', tabindex: 0, 'aria-label': 'Messages and parameters' }, shown))
  }

  private async log(after: string, list?: HTMLElement): Promise<void> {
    const query = after ? `?after=${after}` : ''
    const { data, next } = await json(`/v1/console/generations/${encodeURIComponent(this.id)}/log${query}`)
    if (!list) {
      list = h('ol', { class: 'log', 'data-test': 'raw-log', tabindex: 0, 'aria-label': 'Raw log' })
      this.output.replaceChildren(h('h3', {}, 'Raw log'), list)
    }
    list.append(...data.map((each: any) => h('li', {}, h('code', {}, each.id), h('span', {}, JSON.stringify(each.event)), h('small', {}, `${each.bytes} B`))))
    this.output.querySelector('.more')?.remove()
    if (next) this.output.append(h('button', { type: 'button', class: 'more', onclick: () => this.log(next, list) }, 'More'))
  }

  private async replay(): Promise<void> {
    try {
      const { id } = await post(`/v1/console/generations/${encodeURIComponent(this.id)}/replay`)
      this.deeds.notice(`Started again as ${id}.`)
      this.deeds.open(id)
    } catch (error) {
      this.deeds.notice((error as Error).message)
    }
  }
}

const process = (moment: Moment): string => moment.worker || moment.node || ''

function line(moment: Moment, start: number): HTMLElement {
  const members = Object.entries(moment).filter(([name, value]) => !HIDDEN.has(name) && value !== '' && value !== null)
  return h('li', { 'data-test': 'moment', 'data-what': moment.what, 'data-process': process(moment), class: moment.what },
    h('time', { datetime: new Date(moment.at * 1000).toISOString(), title: clock(moment.at * 1000) }, `+${seconds(Math.max(0, moment.at - start))}`),
    h('b', {}, WORDS[moment.what] ?? moment.what), h('span', { class: 'process' }, process(moment)),
    h('small', {}, members.map(([name, value]) => told(name, value)).join(' · ')))
}

const told = (name: string, value: any): string => {
  const isTime = typeof value === 'number' && (name.endsWith('_s') || name === 'seconds')
  const shown = isTime ? seconds(value) : typeof value === 'number' ? count(value) : String(value)
  return `${name.replace(/_s$/, '').replaceAll('_', ' ')} ${shown}`
}

/** Draw the lanes: bars for attempts on workers and for readers on nodes, marks for single moments. */
function axis(moments: Moment[], ended: boolean): Element {
  const start = moments[0]!.at
  const end = Math.max(ended ? moments.at(-1)!.at : Date.now() / 1000, start + 0.001)
  const lanes = [...new Set(moments.map(process).filter(Boolean))]
  const at = (time: number) => 100 * Math.min(1, Math.max(0, (time - start) / (end - start)))
  const bars: Element[] = []
  lanes.forEach((lane, n) => {
    const y = n * LANE_PX
    const own = moments.filter((each) => process(each) === lane)
    bars.push(svg('line', { x1: '0%', x2: '100%', y1: y + 22, y2: y + 22, class: 'lane' }))
    for (const begun of own.filter((each) => each.what === 'begun')) {
      const over = own.find((each) => each.what === 'attempt_ended' && each.attempt === begun.attempt)
        ?? moments.find((each) => each.what === 'takeover' && (each.attempt ?? 0) > (begun.attempt ?? 0))
      const to = over?.at ?? end
      const isGood = !over || (over.what === 'attempt_ended' && ['completed', 'handed over'].includes(over.ending))
      bars.push(svg('rect', { x: `${at(begun.at)}%`, y: y + 17, width: `${Math.max(0.3, at(to) - at(begun.at))}%`, height: 10, rx: 3, class: isGood ? 'attempt' : 'attempt broken' },
        svg('title', {}, `attempt ${begun.attempt} on ${lane}: ${over?.ending ?? (over ? 'taken over' : 'runs')}`)))
    }
    const readers = own.filter((each) => each.what === 'readers')
    readers.forEach((each, index) => {
      if (!each.readers && !each.joined) return
      const to = each.readers ? readers[index + 1]?.at ?? end : each.at // a visit shorter than the node's note
      bars.push(svg('rect', { x: `${at(each.at)}%`, y: y + 19, width: `${Math.max(0.6, at(to) - at(each.at))}%`, height: 6, rx: 3, class: 'readers' },
        svg('title', {}, `${each.readers || each.joined} readers at ${lane}`)))
    })
    for (const each of own.filter((each) => !['begun', 'readers'].includes(each.what))) {
      bars.push(svg('circle', { cx: `${at(each.at)}%`, cy: y + 22, r: 4, class: `mark ${each.what}` }, svg('title', {}, `${WORDS[each.what] ?? each.what}, +${seconds(each.at - start)}`)))
    }
    bars.push(svg('text', { x: 0, y: y + 12 }, `${own.some((each) => each.worker) ? 'worker' : 'node'} ${lane}`))
  })
  const height = lanes.length * LANE_PX + 22
  for (const share of [0, 50, 100]) {
    bars.push(svg('text', { x: `${share}%`, y: height - 4, class: `tick at${share}` }, seconds(((end - start) * share) / 100)))
  }
  return svg('svg', { class: 'axis', height, width: '100%', role: 'img', 'aria-label': `Time axis over ${seconds(end - start)} with ${lanes.length} processes` }, ...bars)
}
