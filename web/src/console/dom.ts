/** Builds elements. Texts are always text nodes, so nothing that a client chose can become markup. */

export type Child = Node | string | number | null | undefined | false
type Properties = Record<string, string | number | boolean | ((event: any) => void) | null | undefined>

const SVG = 'http://www.w3.org/2000/svg'

export function h(tag: string, properties: Properties = {}, ...children: Child[]): HTMLElement {
  const element = document.createElement(tag)
  apply(element, properties)
  append(element, children)
  return element
}

export function svg(tag: string, properties: Properties = {}, ...children: Child[]): SVGElement {
  const element = document.createElementNS(SVG, tag)
  apply(element, properties)
  append(element, children)
  return element
}

export function find<T extends HTMLElement>(selector: string): T {
  const found = document.querySelector<T>(selector)
  if (!found) throw new Error(`the page has no ${selector}`)
  return found
}

/** Replace the content of an element, but only if it has changed: selections and focus stay. */
export function show(place: Element, key: unknown, make: () => Child[]): void {
  const text = JSON.stringify(key)
  if ((place as any).shown === text) return
  ;(place as any).shown = text
  place.replaceChildren(...(make().filter((child) => child !== null && child !== undefined && child !== false) as Node[]))
}

export function table(heads: string[], rows: HTMLElement[], empty: string): HTMLElement {
  if (!rows.length) return h('p', { class: 'empty' }, empty)
  const names = heads.map((head) => h('th', { scope: 'col' }, head))
  return h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': heads[0] + ' table' },
    h('table', {}, h('thead', {}, h('tr', {}, ...names)), h('tbody', {}, ...rows)))
}

export function cells(...values: Child[]): HTMLElement[] {
  return values.map((value) => h('td', {}, value))
}

function apply(element: Element, properties: Properties): void {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue
    if (typeof value === 'function') element.addEventListener(name.slice(2), value)
    else element.setAttribute(name, String(value))
  }
}

function append(element: Element, children: Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue
    element.append(typeof child === 'number' ? String(child) : child)
  }
}
