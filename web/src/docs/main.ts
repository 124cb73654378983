/** The page /docs: every call of /openapi.json. Nothing of it is written by hand here. */

import './docs.css'
import { byId, h } from '../chat/view/dom.js'
import { describe, type Operation } from './operation.js'
import type { Named } from './schema.js'

const METHODS = ['get', 'post', 'put', 'patch', 'delete'] // head is left out: it answers like get

interface Document { paths: Record<string, Record<string, Operation>>; components: { schemas: Named } }

async function show(): Promise<void> {
  const { paths, components } = (await (await fetch('/openapi.json')).json()) as Document
  const groups = new Map<string, { path: string; method: string; operation: Operation }[]>()
  for (const [path, methods] of Object.entries(paths)) {
    for (const method of METHODS.filter((each) => methods[each])) {
      const operation = methods[method]
      const name = operation.tags?.[0] ?? 'Other'
      groups.set(name, [...(groups.get(name) ?? []), { path, method, operation }])
    }
  }
  const key = byId<HTMLInputElement>('key')
  for (const [name, calls] of groups) {
    const anchor = name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-')
    byId('paths').append(h('div', { class: 'group' }, h('h2', { id: anchor }, name), ...calls.map(
      ({ path, method, operation }) => describe(method, path, operation, components.schemas, () => key.value))))
    byId('calls').append(h('a', { href: `#${anchor}` }, name))
  }
  open()
}

/** Open the call that the address names. */
function open(): void {
  const found = document.getElementById(decodeURIComponent(location.hash.slice(1)))
  if (found instanceof HTMLDetailsElement) found.open = true
  found?.scrollIntoView()
}

function filter(): void {
  const words = byId<HTMLInputElement>('filter').value.toLowerCase().split(/\s+/).filter(Boolean)
  let count = 0
  for (const group of document.querySelectorAll<HTMLElement>('.group')) {
    let own = 0
    for (const call of group.querySelectorAll<HTMLElement>('.call')) {
      const said = call.querySelector('summary')?.textContent?.toLowerCase() ?? ''
      call.hidden = !words.every((word) => said.includes(word))
      own += call.hidden ? 0 : 1
    }
    group.hidden = own === 0
    count += own
  }
  byId('none').hidden = count > 0
}

byId('key').addEventListener('input', () => {
  // The commands of the open calls name the key.
  for (const form of document.querySelectorAll('.try')) form.dispatchEvent(new Event('input'))
})
byId('filter').addEventListener('input', filter)
window.addEventListener('hashchange', open)
void show()
