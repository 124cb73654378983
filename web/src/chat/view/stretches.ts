/**
 * Puts the turns into stretches of a few. The browser skips a whole stretch that is far from the window
 * (`content-visibility`), and watches a hundred elements instead of a thousand in each frame.
 */

import { h } from './dom.js'

/** Turns of a stretch that grows at its end. */
const TURNS_MAX = 10
/** How far beyond the edges of the window a stretch is near. */
const MARGIN = '1200px 0px'

export interface Placed {
  readonly element: HTMLElement
  /** Whether the stretch of the element is near the window. */
  near(isNear: boolean): void
}

export class Stretches {
  private readonly placed = new Map<Element, Placed>()
  private readonly nearby = new Set<Element>()
  private readonly observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) this.cameOrWent(target, isIntersecting)
  }, { rootMargin: MARGIN })

  constructor(private readonly list: HTMLElement) {}

  /** Bring the list into this order. Elements that stand right already are not touched. */
  show(all: Placed[]): void {
    this.placed.clear()
    let before: Element | null = null
    for (const each of all) {
      this.placed.set(each.element, each)
      if (each.element !== this.behind(before)) this.put(each.element, before)
      before = each.element
    }
    for (const stretch of [...this.list.children]) if (!stretch.firstChild) this.drop(stretch)
  }

  private behind(element: Element | null): Element | null {
    if (!element) return this.list.firstElementChild?.firstElementChild ?? null
    return element.nextElementSibling ?? element.parentElement?.nextElementSibling?.firstElementChild ?? null
  }

  private put(element: Element, before: Element | null): void {
    const stretch = before?.parentElement
    if (before && stretch && (before.nextSibling || stretch.childElementCount < TURNS_MAX)) before.after(element)
    else this.open(stretch).append(element)
    this.placed.get(element)?.near(this.nearby.has(element.parentElement!))
  }

  private open(before: Element | null | undefined): Element {
    const stretch = h('div', { class: 'stretch' })
    if (before) before.after(stretch)
    else this.list.prepend(stretch)
    this.observer.observe(stretch)
    return stretch
  }

  private drop(stretch: Element): void {
    this.observer.unobserve(stretch)
    this.nearby.delete(stretch)
    stretch.remove()
  }

  private cameOrWent(stretch: Element, isNear: boolean): void {
    if (isNear) this.nearby.add(stretch)
    else this.nearby.delete(stretch)
    for (const each of stretch.children) this.placed.get(each)?.near(isNear)
  }
}
