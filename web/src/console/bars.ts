/** Stacked bars: the tokens of each day, by owner or by model. The legend has the sums as text. */

import { h, svg } from './dom.js'
import { count } from './format.js'

export interface Column { name: string; tokens: number[] }
export interface Days { month: string; owners: Column[]; models: Column[] }

const HEIGHT_PX = 150
const AXIS_PX = 18
const COLOURS = ['one', 'two', 'three', 'four', 'five', 'six', 'rest']

const sum = (numbers: number[]): number => numbers.reduce((all, each) => all + each, 0)
const nameOf = (column: Column): string => column.name || 'all others'
const colourOf = (column: Column, n: number): string => (column.name ? COLOURS[n]! : 'rest')

export function bars(title: string, month: string, columns: Column[]): HTMLElement {
  const legend = columns.map((each, n) => h('li', { 'data-name': each.name, 'data-value': sum(each.tokens) },
    h('span', { class: `swatch ${colourOf(each, n)}` }), `${nameOf(each)} `, h('b', {}, count(sum(each.tokens)))))
  return h('figure', { 'data-test': 'bars', 'data-by': title },
    h('figcaption', {}, h('h3', {}, title), h('p', {}, 'tokens in and out'), h('ul', {}, ...legend)),
    columns.length ? drawn(title, month, columns) : h('p', { class: 'empty' }, 'No answer has ended this month.'))
}

function drawn(title: string, month: string, columns: Column[]): HTMLElement {
  const days = columns[0]!.tokens.length
  const sums = Array.from({ length: days }, (_, day) => sum(columns.map((each) => each.tokens[day]!)))
  const most = Math.max(1, ...sums)
  const width = 100 / Math.max(days, 10)
  const parts: Element[] = []
  for (let day = 0; day < days; day += 1) {
    let y = HEIGHT_PX
    columns.forEach((each, n) => {
      const height = (each.tokens[day]! / most) * (HEIGHT_PX - 14)
      y -= height
      if (height) parts.push(svg('rect', { x: `${day * width + width * 0.12}%`, y, width: `${width * 0.76}%`, height, class: `bar ${colourOf(each, n)}` },
        svg('title', {}, `${month}-${String(day + 1).padStart(2, '0')}, ${nameOf(each)}: ${count(each.tokens[day]!)} tokens`)))
    })
    if (day % Math.ceil(days / 10) === 0) parts.push(svg('text', { x: `${(day + 0.5) * width}%`, y: HEIGHT_PX + AXIS_PX - 4, class: 'at50' }, day + 1))
  }
  parts.push(svg('line', { x1: 0, x2: '100%', y1: HEIGHT_PX, y2: HEIGHT_PX, class: 'lane' }))
  parts.push(svg('text', { x: 0, y: 10 }, `most: ${count(most)} a day`))
  const picture = svg('svg', { class: 'axis', width: '100%', height: HEIGHT_PX + AXIS_PX, role: 'img', 'aria-label': `${title}: tokens of each day of ${month}` }, ...parts)
  return h('div', {}, picture as unknown as Node)
}
