/** Everything beside the table of generations: tiles, machines, events, batches, schedules, usage. */

import { cells, find, h, show, table, type Child } from './dom.js'
import { clock, count, day, milliseconds, seconds } from './format.js'

const EVENTS: Record<string, [string, string]> = {
  takeovers: ['taken over', 'bad'], leases_lost: ['lease lost', 'bad'], handed_over: ['handed over', ''],
  attempts_failed: ['attempt failed', 'bad'], postponed: ['waits for its model server', 'bad'],
  resumes: ['resumed', ''], repairs: ['copy repaired', ''], cuts: ['slow reader cut', 'bad'], resets: ['reader reset', 'bad'],
  reconnects: ['live connection opened again', 'bad'], worker_started: ['worker started', ''], worker_gone: ['worker gone', 'bad'],
  node_started: ['node started', ''], node_gone: ['node gone', 'bad'],
}

const BREAKERS: Record<string, string> = { closed: 'running', suspect: 'queued', half_open: 'queued', limited: 'queued' }

export interface Actions { drain(worker: string): void; redrive(ids: string[]): void; narrow(worker: string): void }

export class Panels {
  private parts: Record<string, any> = {}

  constructor(private readonly actions: Actions) {
    find('#machines').replaceChildren(...['workers', 'nodes', 'queue', 'backends'].map((id) => h('div', { id: `part-${id}` })))
    find('#work').replaceChildren(h('div', { id: 'part-batches' }), h('div', { id: 'part-schedules' }))
    find('#usage').replaceChildren(h('div', { id: 'part-usage' }))
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
      ['Worker', 'Slots used', 'Tokens/s', 'Answers', 'Failed', 'Taken over', 'Report', ''],
      list.map((each) => h('tr', { 'data-test': 'worker', 'data-id': each.id }, ...cells(
        h('button', { type: 'button', class: 'link', title: 'Show what it runs', onclick: () => this.actions.narrow(each.id) }, each.id),
        h('span', { class: 'meter' }, h('meter', { min: 0, max: each.slots, value: each.running, 'aria-label': 'slots used' }), ` ${each.running} of ${each.slots}`),
        count(each.tokens_per_s), count(each.counters.generations), count(each.counters.attempts_failed), count(each.counters.takeovers),
        `${each.seen_s.toFixed(0)} s ago`,
        each.draining ? h('span', { class: 'badge queued' }, 'draining')
          : h('button', { type: 'button', 'data-test': 'drain', 'data-id': each.id, onclick: () => this.actions.drain(each.id) }, 'Drain')))),
      'No worker reports: start one.')])
  }

  nodes(list: any[]): void {
    this.part('nodes', list, 'Nodes', () => [table(
      ['Node', 'Readers', 'By transport', 'Redis', 'Loop lag', 'Resumes', 'Repairs', 'Cuts', 'Resets', 'Up'],
      list.map((each) => h('tr', { 'data-test': 'node', 'data-id': each.id }, ...cells(
        each.draining ? `${each.id} (draining)` : each.id, count(total(each.readers)),
        Object.entries(each.readers).map(([name, number]) => `${name} ${number}`).join(', ') || '–',
        seconds(each.redis_s), seconds(each.loop_lag_s), count(each.counters.resumes), count(each.counters.repairs),
        count(each.counters.cuts), count(each.counters.resets), day(each.started_at * 1000)))),
      'No node has reported yet.')])
  }

  queue({ partitions }: any): void {
    const shown = partitions.flatMap((each: any) => ['interactive', 'batch'].map((lane) => ({ ...each, lane })))
    this.part('queue', partitions, 'Queue', () => [table(
      ['Partition', 'Lane', 'Waiting', 'Oldest', 'Running', 'Later'],
      shown.map((each: any) => h('tr', { 'data-test': 'lane' }, ...cells(each.partition, each.lane, count(each[each.lane]),
        seconds(each[`${each.lane}_oldest_s`]), each.lane === 'interactive' ? count(each.running) : '', each.lane === 'interactive' ? count(each.later) : ''))),
      'The queue is not read yet.'),
      h('p', { class: 'note' }, 'Generations that go on after a drain or a failure wait in the lane of their priority. “Later” are to be tried again after a pause. “Running” and “later” count both lanes.')])
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
    this.part('happened', list, 'Events of the last hour', () => [table(['When', 'What', 'Process', 'How often'],
      list.map((each) => {
        const [text, tone] = EVENTS[each.what] ?? [each.what, '']
        return h('tr', { 'data-test': 'event', 'data-what': each.what }, ...cells(clock(each.at_ms), h('span', { class: `badge ${tone}` }, text), each.process, count(each.count)))
      }), 'Nothing happened in the last hour: no takeover, no cut, no reset.'),
      h('p', { class: 'note' }, 'Events are counted over ten seconds.')])
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

  schedules(list: any[]): void {
    this.part('schedules', list, 'Schedules', () => [table(['Schedule', 'Owner', 'Starts', 'When', 'Next', 'Last', 'Last error'],
      list.map((each) => h('tr', {}, ...cells(each.id, each.owner, each.kind, each.cron ?? 'once', day(each.next_at_ms), day(each.last_at_ms), each.error ?? '–'))),
      'Nothing is scheduled.')])
  }

  usage(list: any[]): void {
    this.part('usage', list, 'Usage of this month', () => [table(['Owner', 'Model', 'Answers', 'Tokens in', 'Tokens out', 'Cached', 'Estimated', 'Time'],
      list.map((each) => h('tr', {}, ...cells(each.owner, each.model, count(each.prompts), count(each.input), count(each.output), count(each.cached), count(each.estimated), milliseconds(each.held_ms)))),
      'No answer has ended this month.'),
      h('p', { class: 'note' }, 'The owners who were counted last. The command “tailrace usage --owner \'*\'” prints all.')])
  }
}

const total = (numbers: Record<string, number>): number => Object.values(numbers).reduce((sum, each) => sum + each, 0)
