/** The table of generations, and its filters, which the server applies. */

import { find, h, show } from './dom.js'
import { count, milliseconds } from './format.js'

export interface Row {
  id: string; state: string; owner?: string; model?: string; backend?: string; priority?: string; worker?: string
  attempt?: number; readers?: number; tokens?: number; tokens_per_s?: number; idle_ms?: number; waiting_ms?: number
  created_at_ms?: number; ended_at_ms?: number; error?: string
}
interface Rows { now_ms: number; total: number; unfinished: number; page: number; rows: Row[] }

const HEADS = ['State', 'Id', 'Owner', 'Model', 'Worker', 'Age', 'Last token', 'Tokens/s', 'Tokens', 'Attempt', 'Readers']
const NAMES = ['state', 'search', 'owner', 'model', 'backend', 'worker'] as const
const PER_PAGE = 50
/** Silent for so long, a running generation is marked. */
const SILENT_MS = 10_000

export class Generations {
  page = 1
  unfinished = 0
  private form = find<HTMLFormElement>('#filters')
  private body = h('tbody')

  constructor(private readonly changed: () => void, private readonly open: (id: string) => void, cancelAll: () => void) {
    find('#generations').replaceChildren(
      h('thead', {}, h('tr', {}, ...HEADS.map((head) => h('th', { scope: 'col' }, head)))), this.body)
    this.form.addEventListener('submit', (event) => { event.preventDefault(); this.turn(1) })
    this.form.addEventListener('reset', () => setTimeout(() => this.turn(1)))
    find('#filters select').addEventListener('change', () => this.turn(1))
    find('#cancel-all').addEventListener('click', cancelAll)
    find('#before').addEventListener('click', () => this.turn(this.page - 1))
    find('#after').addEventListener('click', () => this.turn(this.page + 1))
  }

  query(): string {
    return new URLSearchParams({ page: String(this.page), ...this.filter() }).toString()
  }

  /** What the filters say; absent: everything passes. */
  filter(): Record<string, string> {
    const given = new FormData(this.form)
    const query: Record<string, string> = {}
    for (const name of NAMES) {
      const value = String(given.get(name) ?? '').trim()
      if (value) query[name] = value
    }
    return query
  }

  narrow(name: (typeof NAMES)[number], value: string): void {
    (this.form.elements.namedItem(name) as HTMLInputElement).value = value
    this.turn(1)
  }

  show({ now_ms, total, unfinished, page, rows }: Rows): void {
    const known = new Map([...this.body.children].map((row) => [(row as HTMLElement).dataset.id!, row as HTMLElement]))
    const shown = rows.map((row) => {
      const element = known.get(row.id) ?? this.build(row.id)
      this.fill(element, row, now_ms)
      return element
    })
    if (!shown.length) this.body.replaceChildren(h('tr', { class: 'empty' }, h('td', { colspan: HEADS.length }, 'No generation passes this filter.')))
    else if ([...this.body.children].some((row, n) => row !== shown[n]) || this.body.children.length !== shown.length) {
      this.body.replaceChildren(...shown)
    }
    const last = Math.max(1, Math.ceil(total / PER_PAGE))
    find('#place').textContent = total ? `page ${page} of ${count(last)} · ${count(total)} ${total === 1 ? 'generation' : 'generations'}` : ''
    this.unfinished = unfinished ?? 0
    const all = find<HTMLButtonElement>('#cancel-all')
    all.hidden = !this.unfinished
    all.textContent = this.unfinished === 1 ? 'Cancel this one' : `Cancel all ${count(this.unfinished)}`
    find<HTMLButtonElement>('#before').disabled = page <= 1
    find<HTMLButtonElement>('#after').disabled = page >= last
  }

  private turn(page: number): void {
    this.page = Math.max(1, page)
    this.changed()
  }

  private build(id: string): HTMLElement {
    const row = h('tr', { 'data-test': 'generation', 'data-id': id, tabindex: 0 })
    row.addEventListener('click', () => this.open(id))
    row.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && event.target === row) this.open(id)
    })
    return row
  }

  private fill(element: HTMLElement, row: Row, now_ms: number): void {
    const age = row.created_at_ms ? (row.ended_at_ms ?? now_ms) - row.created_at_ms : null
    const silent = row.state === 'running' && (row.idle_ms ?? 0) > SILENT_MS
    const last = row.state === 'queued' ? `waits ${milliseconds(row.waiting_ms)}` : milliseconds(row.idle_ms)
    const backend = row.backend && row.backend !== row.model ? ` · ${row.backend}` : ''
    element.dataset.state = row.state
    const values = [
      row.error ? `${row.state}: ${row.error}` : row.state, row.id.replace(/^gen_/, ''), row.owner ?? '…', `${row.model ?? '…'}${backend}`,
      row.worker ?? '–', milliseconds(age), last, count(row.tokens_per_s), count(row.tokens), row.attempt ?? 0, row.readers ?? 0,
    ]
    show(element, [values, silent], () => values.map((value, n) =>
      h('td', { class: n === 6 && silent ? 'silent' : null, 'data-head': HEADS[n]!, title: n === 1 ? row.id : null },
        n === 0 ? h('span', { class: `badge ${row.state}` }, value) : value)))
  }
}
