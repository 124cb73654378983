/** Prompts that no node has accepted yet. They outlive a reload, and are sent again with the same key. */

import { ofBrowser } from './memory.js'

const NAME = 'tailrace.outbox'
/** Prompts of all conversations; a browser's storage has about 5 MB. */
const PROMPTS_MAX = 20
const CHARACTERS_MAX = 1_000_000

export interface Unsent {
  /** The idempotency key: a repeat cannot start a second answer. */
  key: string
  session: string
  prompt: string
  body: Record<string, unknown>
  createdAt: number
}

export const outbox = {
  of(session: string): Unsent[] {
    return read().filter((each) => each.session === session)
  },

  /** A prompt with large pictures is kept in this tab's memory only. */
  put(unsent: Unsent): void {
    const others = read().filter(({ key }) => key !== unsent.key)
    if (JSON.stringify(unsent).length > CHARACTERS_MAX) return
    ofBrowser.setJson(NAME, [...others, unsent].slice(-PROMPTS_MAX))
  },

  remove(key: string): void {
    const all = read()
    const rest = all.filter((each) => each.key !== key)
    if (rest.length < all.length) ofBrowser.set(NAME, rest.length ? JSON.stringify(rest) : '')
  },
}

function read(): Unsent[] {
  const found = ofBrowser.getJson<unknown>(NAME, [])
  return Array.isArray(found) ? found.filter((each) => each && typeof each.key === 'string' && each.body) : []
}
