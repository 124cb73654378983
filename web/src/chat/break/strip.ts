/** Draws when events arrived: a filled piece for each stretch of text, a gap for each wait, a mark for each fault. The legend names the three. */

import { h } from '../view/dom.js'

/** A shorter pause is a part of the stretch. */
const GAP_MS = 400
/** A narrower gap has no room for its figure. */
const LABEL_PERCENT = 6

export class Strip {
  private shown = ''

  constructor(private readonly element: HTMLElement, private readonly legend: HTMLElement) {}

  draw(arrivals: number[], faults: number[]): void {
    const first = arrivals[0]
    const last = arrivals.at(-1) ?? 0
    this.element.hidden = this.legend.hidden = arrivals.length < 2
    if (arrivals.length < 2) return
    const begin = Math.min(first, ...faults)
    const span = Math.max(last, ...faults) - begin || 1
    const percent = (ms: number) => (100 * ms) / span
    const pieces: HTMLElement[] = []
    const add = (kind: string, from: number, to: number, text = '') => {
      const piece = h('span', { class: kind }, text)
      piece.style.left = `${percent(from - begin).toFixed(2)}%`
      piece.style.width = `${percent(to - from).toFixed(2)}%`
      pieces.push(piece)
    }
    let from = first
    arrivals.forEach((at, index) => {
      const next = arrivals[index + 1]
      if (next === undefined || next - at > GAP_MS) {
        add('text', from, at)
        if (next !== undefined) {
          const isWide = percent(next - at) > LABEL_PERCENT
          add('wait', at, next, isWide ? `${((next - at) / 1000).toFixed(1)} s` : '')
          from = next
        }
      }
    })
    for (const at of faults) add('fault', at, at)
    const key = pieces.map((piece) => `${piece.className} ${piece.style.cssText} ${piece.textContent}`).join()
    if (key === this.shown) return
    this.shown = key
    this.element.replaceChildren(...pieces)
  }
}
