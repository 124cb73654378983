/** Everything beside the table of generations: tiles, machines, events, batches, schedules, usage. */

import { cells, find, h, show, table, type Child } from './dom.js'
import { bars, type Days } from './bars.js'
import { clock, count, day, milliseconds, seconds } from './format.js'

const EVENTS: Record<string, [string, string]> = {
  takeovers: ['taken over', 'bad'], leases_lost: ['lease lost', 'bad'], handed_over: ['handed over', ''],
  attempts_failed: ['attempt failed', 'bad'], postponed: ['waits for its model server', 'bad'],
  resumes: ['resumed', ''], repairs: ['copy repaired', ''], cuts: ['slow reader cut', 'bad'], resets: ['reader reset', 'bad'],
  reconnects: ['live connection opened again', 'bad'], worker_started: ['worker started', ''], worker_gone: ['worker gone', 'bad'],
  node_started: ['node started', ''], node_gone: ['node gone', 'bad'],
}

const BREAKERS: Record<string, string> = { closed: 'running', suspect: 'queued', half_open: 'queued', limited: 'queued' }

export interface Actions {
  drain(worker: string): void
  redrive(ids: string[]): void
  deliver(id: string): void
  deliverAll(count: number): void
  narrow(worker: string): void
}

const NAMES_SHOWN = 3

export class Panels {
  private parts: Record<string, any> = {}

  constructor(private readonly actions: Actions) {
    find('#machines').replaceChildren(...['workers', 'nodes', 'queue', 'models', 'backends'].map((id) => h('div', { id: `part-${id}` })))
    find('#work').replaceChildren(h('div', { id: 'part-batches' }), h('div', { id: 'part-webhooks' }), h('div', { id: 'part-schedules' }))
    find('#usage').replaceChildren(h('div', { id: 'part-usage_days' }), h('div', { id: 'part-usage' }))
    find('#events').replaceChildren(h('div', { id: 'part-happened' }))
  }

  take(name: string, data: any): void {
    this.parts[name] = data
    const draw = (this as any)[name] as ((data: any) => void) | undefined
    draw?.call(this, data)
  }

  tiles(latest: (name: string) => number | null): void {
    const totals = this.parts.queue?.totals ?? {}
    const workers: any[] = this.parts.workers ?? []
    const nodes: any[] = this.parts.nodes ?? []
    const rate = workers.reduce((sum, each) => sum + each.tokens_per_s, 0)
    const slots = workers.reduce((sum, each) => sum + each.slots, 0)
    const used = workers.reduce((sum, each) => sum + each.running, 0)
    const readers = nodes.reduce((sum, each) => sum + total(each.readers), 0)
    const oldest = (this.parts.queue?.partitions ?? []).reduce((most: number, each: any) =>
      Math.max(most, each.interactive_oldest_s ?? 0, each.batch_oldest_s ?? 0), 0)
    const tiles: [string, string, string][] = [
      ['Running', count(totals.running), `${count(used)} of ${count(slots)} slots`],
      ['Waiting', count((totals.interactive ?? 0) + (totals.batch ?? 0)), oldest ? `the oldest ${seconds(oldest)}` : 'nobody waits'],
      ['Tokens/s', count(rate), `${count(workers.length)} workers`],
      ['First token', seconds(latest('first_p50_s')), `p99 ${seconds(latest('first_p99_s'))}`],
      ['Readers', count(readers), `${count(nodes.length)} nodes`],
    ]
    show(find('#tiles'), tiles, () => tiles.map(([name, value, note]) =>
      h('div', { class: 'tile', 'data-tile': name }, h('span', {}, name), h('b', {}, value), h('small', {}, note))))
  }

  private part(id: string, key: unknown, title: string, make: () => Child[]): void {
    show(find(`#part-${id}`), key, () => [h('h2', {}, title), ...make()])
  }

  workers(list: any[]): void {
    this.part('workers', list, 'Workers', () => [table(
      ['Worker', 'Slots used', 'Serves', 'Tokens/s', 'Answers', 'Failed', 'Taken over', 'Report', ''],
      list.map((each) => h('tr', { 'data-test': 'worker', 'data-id': each.id }, ...cells(
        h('button', { type: 'button', class: 'link', title: 'Show what it runs', onclick: () => this.actions.narrow(each.id) }, each.id),
        h('span', { class: 'meter' }, h('meter', { min: 0, max: each.slots, value: each.running, 'aria-label': 'slots used' }), ` ${each.running} of ${each.slots}`),
        some(each.models), count(each.tokens_per_s), count(each.counters.generations), count(each.counters.attempts_failed), count(each.counters.takeovers),
        `${each.seen_s.toFixed(0)} s ago`,
        each.draining ? h('span', { class: 'badge queued' }, 'draining')
          : h('button', { type: 'button', 'data-test': 'drain', 'data-id': each.id, onclick: () => this.actions.drain(each.id) }, 'Drain')))),
      'No worker reports: start one.')])
    this.redraw('queue')
    this.redraw('models')
  }

  private redraw(name: string): void {
    if (this.parts[name]) this.take(name, this.parts[name])
  }

  nodes(list: any[]): void {
    this.part('nodes', list, 'Nodes', () => [table(
      ['Node', 'Readers', 'By transport', 'Redis', 'Loop lag', 'Resumes', 'Repairs', 'Cuts', 'Resets', 'Up since'],
      list.map((each) => h('tr', { 'data-test': 'node', 'data-id': each.id }, ...cells(
        each.draining ? `${each.id} (draining)` : each.id, count(total(each.readers)),
        Object.entries(each.readers).map(([name, number]) => `${name} ${number}`).join(', ') || '–',
        seconds(each.redis_s), seconds(each.loop_lag_s), count(each.counters.resumes), count(each.counters.repairs),
        count(each.counters.cuts), count(each.counters.resets), day(each.started_at * 1000)))),
      'No node has reported yet.')])
  }

  queue({ partitions }: any): void {
    const shown = partitions.flatMap((each: any) => ['interactive', 'batch'].map((lane) => ({ ...each, lane })))
    const working = ((this.parts.workers ?? []) as any[]).filter((each) => !each.draining)
    const served: Record<string, any[]> = { interactive: working, batch: working.filter((each) => each.batch_slots > 0) }
    const slots = (lane: string) => served[lane]!.reduce((sum, each) => sum + (lane === 'batch' ? each.batch_slots : each.slots), 0)
    const by = (lane: string) => h('span', { title: served[lane]!.map((each) => each.id).join('\n') }, `${workersOf(served[lane]!.length)}, ${count(slots(lane))} slots`)
    this.part('queue', [partitions, working.map((each) => [each.id, each.slots, each.batch_slots])], 'Queue', () => [table(
      ['Partition', 'Lane', 'Waiting', 'Oldest', 'Served by', 'Running', 'Later'],
      shown.map((each: any) => h('tr', { 'data-test': 'lane' }, ...cells(each.partition, each.lane, count(each[each.lane]),
        seconds(each[`${each.lane}_oldest_s`]), by(each.lane), each.lane === 'interactive' ? count(each.running) : '', each.lane === 'interactive' ? count(each.later) : ''))),
      'The queue is not read yet.'),
      h('p', { class: 'note' }, 'Generations that go on after a drain or a failure wait in the lane of their priority. “Later” are to be tried again after a pause. “Running” and “later” count both lanes. Every worker serves every partition; of its slots, batches get a share.')])
  }

  /** Who serves which model, and how long its prompts wait and run. */
  models(list: any[]): void {
    const working = ((this.parts.workers ?? []) as any[]).filter((each) => !each.draining)
    const served = new Map<string, string[]>()
    for (const worker of working) for (const model of worker.models) served.set(model, [...served.get(model) ?? [], worker.id])
    const idle = [...served.keys()].filter((model) => !list.some((each) => each.model === model)).map((model) => ({ model, begun: 0, ended: 0 }))
    const rows: any[] = [...list, ...idle]
    this.part('models', [rows, [...served]], 'Models, of the last hour', () => [table(
      ['Model', 'Served by', 'Begun', 'Ended', 'Wait p50', 'Wait p95', 'Run p50', 'Run p95'],
      rows.map((each) => h('tr', { 'data-test': 'model', 'data-id': each.model }, ...cells(each.model, names(served.get(each.model) ?? [], (id) => this.actions.narrow(id)),
        count(each.begun), count(each.ended), seconds(each.wait_p50_s), seconds(each.wait_p95_s), seconds(each.run_p50_s), seconds(each.run_p95_s)))),
      'No worker serves a model.'),
      h('p', { class: 'note' }, 'Wait: until a worker began an attempt. Run: from there until the attempt was over. The queue has one line for all models.')])
  }

  backends(list: any[]): void {
    if (!list.length) return
    const slots = (each: any) => (each.slots ? `${count(each.slots.held)} of ${count(each.slots.number)}` : 'any')
    this.part('backends', list, 'Backends', () => [table(
      ['Backend', 'Breaker', 'In flight', 'Slots', 'Waiting', 'First token', 'p99', 'Calls', 'Failures', 'Reason'],
      list.map((each) => h('tr', { 'data-test': 'backend', 'data-id': each.name }, ...cells(each.name,
        h('span', { class: `badge ${BREAKERS[each.state] ?? 'failed'}` }, String(each.state).replace('_', ' ')),
        count(each.in_flight), slots(each), count(each.slots?.waiting), seconds(each.first_token_s?.p50), seconds(each.first_token_s?.p99),
        count(each.calls), count(total(each.failures ?? {})), each.reason ?? '–'))), '')])
  }

  happened(list: any[]): void {
    this.part('happened', list, 'Events of the last hour', () => [table(['When', 'What', 'Process', 'How often', 'Generations'],
      list.map((each) => {
        const [text, tone] = EVENTS[each.what] ?? [each.what, '']
        return h('tr', { 'data-test': 'event', 'data-what': each.what }, ...cells(clock(each.at_ms), h('span', { class: `badge ${tone}` }, text), each.process, count(each.count), links(each)))
      }), 'Nothing happened in the last hour: no takeover, no cut, no reset.'),
      h('p', { class: 'note' }, 'Events are counted over ten seconds. Of each, the newest generations are named, five at most.')])
  }

  batches(list: any[]): void {
    const failed = list.filter((each) => each.can_redrive)
    this.part('batches', list, 'Batches', () => [
      failed.length > 1 && h('p', {}, h('button', { type: 'button', 'data-test': 'redrive-all', onclick: () => this.actions.redrive(failed.map((each) => each.id)) },
        `Retry the failed lines of all ${failed.length} batches`)),
      table(['Batch', 'Owner', 'State', 'Progress', 'Dead letters', 'Created', ''],
        list.map((each) => h('tr', { 'data-test': 'batch', 'data-id': each.id }, ...cells(each.id, each.owner,
          h('span', { class: `badge ${each.status}` }, each.status),
          h('span', { class: 'meter' }, h('progress', { max: Math.max(1, each.total), value: each.completed + each.failed, 'aria-label': 'lines done' }),
            ` ${count(each.completed + each.failed)} of ${count(each.total)}`),
          count(each.failed), day(each.created_at_ms),
          each.can_redrive ? h('button', { type: 'button', 'data-test': 'redrive', 'data-id': each.id, onclick: () => this.actions.redrive([each.id]) }, 'Retry failed lines') : ''))),
        'No batch is under way, and none has failed lately.')])
  }

  webhooks({ total: dead, letters }: { total: number; letters: any[] }): void {
    this.part('webhooks', [dead, letters], 'Webhooks that were given up', () => [
      dead > 1 && h('p', {}, h('button', { type: 'button', 'data-test': 'deliver-all', onclick: () => this.actions.deliverAll(dead) }, `Deliver all ${count(dead)} again`)),
      table(['Subject', 'Owner', 'Receiver', 'Attempts', 'Last failure', 'Given up', ''],
        letters.map((each) => h('tr', { 'data-test': 'webhook', 'data-id': each.id }, ...cells(
          each.id.startsWith('gen_') ? link(each.id) : each.id, each.owner || '–', each.host, count(each.attempts), each.reason || '–', day(each.given_up_at_ms),
          h('button', { type: 'button', 'data-test': 'deliver', 'data-id': each.id, onclick: () => this.actions.deliver(each.id) }, 'Deliver again')))),
        'No webhook was given up lately.')])
  }

  schedules(list: any[]): void {
    this.part('schedules', list, 'Schedules', () => [table(['Schedule', 'Owner', 'Starts', 'When', 'Next', 'Last', 'Last error'],
      list.map((each) => h('tr', {}, ...cells(each.id, each.owner, each.kind, each.cron ?? 'once', day(each.next_at_ms), day(each.last_at_ms), each.error ?? '–'))),
      'Nothing is scheduled.')])
  }

  usage_days(days: Days): void {
    this.part('usage_days', days, 'Tokens of this month by day', () => [
      h('div', { class: 'bars' }, bars('By owner', days.month, days.owners), bars('By model', days.month, days.models))])
  }

  usage(list: any[]): void {
    this.part('usage', list, 'Usage of this month', () => [table(['Owner', 'Model', 'Answers', 'Tokens in', 'Tokens out', 'Cached', 'Estimated', 'Time'],
      list.map((each) => h('tr', {}, ...cells(each.owner, each.model, count(each.prompts), count(each.input), count(each.output), count(each.cached), count(each.estimated), milliseconds(each.held_ms)))),
      'No answer has ended this month.'),
      h('p', { class: 'note' }, 'The owners who were counted last. The command “tailrace usage --owner \'*\'” prints all.')])
  }
}

const workersOf = (number: number): string => `${count(number)} ${number === 1 ? 'worker' : 'workers'}`
const link = (id: string): HTMLElement => h('a', { href: `#${id}`, title: id, 'data-test': 'generation-link', 'data-id': id }, id.replace(/^gen_/, '').slice(-8))
const links = ({ ids }: { ids?: string[] }): HTMLElement => h('span', { class: 'links' }, ...(ids ?? []).map(link))

/** The first names, and how many there are; all of them as a hint. */
function some(list: string[]): HTMLElement {
  const more = list.length - NAMES_SHOWN
  return h('span', { title: list.join('\n') }, list.slice(0, NAMES_SHOWN).join(', ') + (more > 0 ? ` and ${more} more` : '') || '–')
}

function names(list: string[], open: (name: string) => void): HTMLElement {
  const more = list.length - NAMES_SHOWN
  return h('span', { class: 'links', title: list.join('\n') }, ...list.slice(0, NAMES_SHOWN).map((name) =>
    h('button', { type: 'button', class: 'link', title: 'Show what it runs', onclick: () => open(name) }, name)), more > 0 ? `and ${more} more` : null, list.length ? null : 'no worker')
}

const total = (numbers: Record<string, number>): number => Object.values(numbers).reduce((sum, each) => sum + each, 0)
