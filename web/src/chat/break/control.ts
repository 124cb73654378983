/** Asks the node for faults: docs/break-it.md. Only a node of `tailrace up` on this machine has these paths. */

import type { PageClient } from '../client.js'

export interface Note { n: number; at_ms: number; text: string }
export interface KnownText { characters: number | null; sha256: string | null }
interface State { token: string; actions: string[]; notes: Note[] }

const TRY_FOR_MS = 10_000
const PAUSE_MS = 600
const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/

export class Control {
  actions: string[] = []
  private token = ''
  private last = 0

  constructor(private readonly client: PageClient) {}

  /** Returns the new notes; null: this node cannot be broken, or does not answer now. */
  async look(): Promise<Note[] | null> {
    if (!LOOPBACK.test(location.hostname)) return null
    try {
      const response = await this.client.once(`/v1/break?after=${this.last}`)
      if (!response.ok) return null
      const state = (await response.json()) as State
      this.token = state.token // another node process has another token
      this.actions = state.actions
      this.last = Math.max(this.last, ...state.notes.map((note) => note.n))
      return state.notes
    } catch {
      return null
    }
  }

  /** Do one fault. Tries again for a while: a worker may just be starting. Returns why not, or ''. */
  async break(what: string, generation: string, isWanted: () => boolean): Promise<string> {
    const until = Date.now() + TRY_FOR_MS
    for (;;) {
      let why: string
      try {
        const response = await this.client.once(`/v1/break/${what}?id=${generation}`, {
          method: 'POST', headers: { 'x-break-token': this.token },
        })
        if (response.ok) return ''
        why = ((await response.json()) as { error: { message: string } }).error.message
      } catch {
        if (what === 'node') return '' // the node has died before it could answer
        why = 'the node does not answer'
      }
      if (Date.now() > until || !isWanted()) return why
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
      await this.look()
    }
  }

  async knownText(generation: string): Promise<KnownText | null> {
    try {
      const response = await this.client.once(`/v1/break/${generation}`)
      return response.ok ? ((await response.json()) as KnownText) : null
    } catch {
      return null
    }
  }

  /** The text of the log, for a model whose text nobody can know before. */
  async logText(generation: string): Promise<string | null> {
    try {
      const response = await this.client.once(`/v1/generations/${generation}`)
      return response.ok ? ((await response.json()) as { text: string }).text : null
    } catch {
      return null
    }
  }
}

export async function sha256(text: string): Promise<string> {
  const bytes = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)))
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}
