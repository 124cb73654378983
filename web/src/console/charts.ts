/** The charts of the last hour. The newest value of each series stands beside its name, as text. */

import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import { count, seconds } from './format.js'
import { h } from './dom.js'

const POINTS = 360
const HEIGHT_PX = 170
/** A tile shows the newest value of the last five minutes. */
const LATEST_POINTS = 30

/** Columns by model come in `history.models`; their series are named by column and model. */
const BY_MODEL: [string, string, string, 's' | 'n'][] = [
  ['wait_p95_s', 'Wait by model, p95', 'until a worker began an attempt', 's'],
  ['run_p95_s', 'Run by model, p95', 'from the begin of an attempt until it was over', 's'],
  ['begun_per_s', 'Attempts by model', 'begun, each second', 'n'],
]
const COLOURS = ['--one', '--two', '--three', '--four', '--five']

interface Series { name: string; label: string; colour: string; scale?: number }
interface Plot { id: string; title: string; about: string; series: Series[]; unit: 's' | 'n' }

const PLOTS: Plot[] = [
  { id: 'first', title: 'First token', about: 'from acceptance to the first token', unit: 's', series: [
    { name: 'first_p50_s', label: 'p50', colour: '--one' }, { name: 'first_p99_s', label: 'p99', colour: '--two' }] },
  { id: 'tokens', title: 'Tokens per second', about: 'pieces of text, all workers', unit: 'n', series: [
    { name: 'tokens_per_s', label: 'tokens/s', colour: '--one' }] },
  { id: 'gaps', title: 'Gaps', about: 'longest pause of each answer, each second', unit: 's', series: [
    { name: 'gap_p50_s', label: 'p50', colour: '--one' }, { name: 'gap_p99_s', label: 'p99', colour: '--two' },
    { name: 'gap_max_s', label: 'max', colour: '--three' }] },
  { id: 'load', title: 'Generations', about: 'running and waiting', unit: 'n', series: [
    { name: 'running', label: 'running', colour: '--one' }, { name: 'waiting', label: 'waiting', colour: '--two' },
    { name: 'readers', label: 'readers', colour: '--three' }] },
  { id: 'redis', title: 'Redis round trip', about: 'the slowest node', unit: 's', series: [
    { name: 'redis_s', label: 'round trip', colour: '--one' }] },
  { id: 'lag', title: 'Loop lag', about: 'the longest of all nodes', unit: 's', series: [
    { name: 'loop_lag_s', label: 'lag', colour: '--one' }] },
]

/** Points without a neighbour: no line shows them. */
const alone = (values: ArrayLike<number | null | undefined>): number[] =>
  Array.from(values, (_, n) => n).filter((n) => values[n] != null && values[n - 1] == null && values[n + 1] == null)

export class Charts {
  private columns: Record<string, (number | null)[]> = { at_ms: [] }
  private plots = new Map<string, uPlot>()
  private models: string[] = []
  private all: Plot[] = [...PLOTS]

  constructor(private readonly place: HTMLElement) {
    for (const plot of PLOTS) this.place.append(this.figure(plot))
    this.chartModels()
    new ResizeObserver(() => this.resize()).observe(place)
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.rebuild())
  }

  add(history: Record<string, any>): void {
    const before = this.columns.at_ms!.length
    const added: number = history.at_ms.length
    for (const [name, values] of Object.entries(history)) {
      if (Array.isArray(values)) this.columns[name] = [...(this.columns[name] ?? []), ...values].slice(-POINTS)
    }
    const models: Record<string, Record<string, (number | null)[]>> = history.models ?? {}
    for (const model of new Set([...this.models, ...Object.keys(models)])) {
      for (const [column] of BY_MODEL) { // a model that has just come, or is not among the busiest any more, has a gap
        const name = `${column} ${model}`
        const old = this.columns[name] ?? new Array(before).fill(null)
        this.columns[name] = [...old, ...(models[model]?.[column] ?? new Array(added).fill(null))].slice(-POINTS)
      }
    }
    const shown = Object.keys(models)
    if (shown.length && shown.join('\n') !== this.models.join('\n')) {
      for (const gone of this.models.filter((each) => !shown.includes(each))) for (const [column] of BY_MODEL) delete this.columns[`${column} ${gone}`]
      this.models = shown
      this.chartModels()
    }
    this.draw()
  }

  private figure(plot: Plot): HTMLElement {
    const legend = plot.series.map((each) => h('li', { 'data-series': each.name },
      h('span', { class: `swatch ${each.colour.slice(2)}` }), `${each.label} `, h('b', {}, '–')))
    return h('figure', { id: `plot-${plot.id}` },
      h('figcaption', {}, h('h3', {}, plot.title), h('p', {}, plot.about), h('ul', {}, ...legend)),
      h('div', { class: 'plot', role: 'img', 'aria-label': `${plot.title} in the last hour` }))
  }

  /** Draw the charts of the busiest models anew, because others are the busiest now. */
  private chartModels(): void {
    this.all = [...PLOTS]
    for (const [column, title, about, unit] of BY_MODEL) {
      const series = this.models.map((model, n) => ({ name: `${column} ${model}`, label: model, colour: COLOURS[n % COLOURS.length]! }))
      const plot = { id: column, title, about, unit, series }
      this.all.push(plot)
      this.plots.get(column)?.destroy()
      this.plots.delete(column)
      const old = document.getElementById(`plot-${column}`)
      if (old) old.replaceWith(this.figure(plot))
      else this.place.append(this.figure(plot))
    }
  }

  /** Draw what was added while the charts were hidden. */
  draw(): void {
    this.name()
    if (!this.place.offsetWidth || !this.columns.at_ms!.length) return
    for (const plot of this.all) {
      const known = this.plots.get(plot.id)
      if (known) known.setData(this.data(plot))
      else this.plots.set(plot.id, this.build(plot))
    }
  }

  latest(name: string): number | null {
    return this.columns[name]?.slice(-LATEST_POINTS).findLast((value) => value !== null) ?? null
  }

  private name(): void {
    for (const plot of this.all) {
      for (const each of plot.series) {
        const value = this.columns[each.name]?.at(-1) ?? null
        const item = this.place.querySelector<HTMLElement>(`[data-series="${CSS.escape(each.name)}"]`)!
        item.dataset.value = value === null ? '' : String(value)
        item.querySelector('b')!.textContent = plot.unit === 's' ? seconds(value) : count(value)
      }
    }
  }

  private data(plot: Plot): uPlot.AlignedData {
    const times = this.columns.at_ms!.map((ms) => ms! / 1000)
    return [times, ...plot.series.map((each) => this.columns[each.name] ?? [])] as uPlot.AlignedData
  }

  private build(plot: Plot): uPlot {
    const style = getComputedStyle(document.documentElement)
    const colour = (name: string) => style.getPropertyValue(name).trim()
    const format = plot.unit === 's' ? seconds : count
    const axis = { stroke: colour('--quiet'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '12px system-ui' }
    const place = this.place.querySelector<HTMLElement>(`#plot-${plot.id} .plot`)!
    return new uPlot({
      width: place.clientWidth, height: HEIGHT_PX, legend: { show: false }, cursor: { y: false, points: { size: 6 } },
      scales: { x: { time: true }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.15 : 1] } },
      axes: [{ ...axis, size: 30, space: 70, values: (_, times) => times.map((time) => new Date(time * 1000).toTimeString().slice(0, time % 60 ? 8 : 5)) },
        { ...axis, size: 62, values: (_, values) => values.map((value) => format(value)) }],
      series: [{}, ...plot.series.map((each) => ({
        label: each.label, stroke: colour(each.colour), width: 1.75, spanGaps: false,
        points: { show: true, size: 4, filter: (self: uPlot, index: number) => alone(self.data[index]!) } }))],
    }, this.data(plot), place)
  }

  private rebuild(): void {
    for (const plot of this.plots.values()) plot.destroy()
    this.plots.clear()
    this.draw()
  }

  private resize(): void {
    this.draw()
    for (const [id, plot] of this.plots) {
      const width = this.place.querySelector<HTMLElement>(`#plot-${id} .plot`)!.clientWidth
      if (width && width !== plot.width) plot.setSize({ width, height: HEIGHT_PX })
    }
  }
}
