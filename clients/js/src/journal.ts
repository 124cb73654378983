/** The cursors of unfinished answers in a storage of the page, so that they go on after a reload. */

import type { Clock } from './environment.js'

/** `localStorage`, `sessionStorage`, or an object with the same three functions, which may be async. */
export interface CursorStorage {
  getItem(key: string): string | null | Promise<string | null>
  setItem(key: string, value: string): unknown
  removeItem(key: string): unknown
}

const PREFIX = 'tailrace:'
const INDEX = `${PREFIX}answers`
/** Cursors are written at most so often, ms. A cursor that is a little old repeats no event to a page that was reloaded: the page begins with it. */
const WRITE_MS = 250
/** The most unfinished answers that are kept. */
const ANSWERS_MAX = 100

export class Journal {
  private cursors: Record<string, string> = {}
  private loaded: Promise<void> | undefined
  private timer: unknown

  constructor(private readonly storage: CursorStorage, private readonly clock: Clock) {}

  /** The unfinished answers: id and cursor. A storage that fails or was changed by hand is empty. */
  async read(): Promise<[string, string][]> {
    await (this.loaded ??= this.load())
    return Object.entries(this.cursors)
  }

  note(id: string, cursor: string, isDone: boolean): void {
    if (isDone) delete this.cursors[id]
    else this.cursors[id] = cursor
    if (isDone) return this.write()
    this.timer ??= this.clock.setTimeout(() => this.write(), WRITE_MS)
  }

  private async load(): Promise<void> {
    try {
      const found = JSON.parse((await this.storage.getItem(INDEX)) ?? '{}')
      this.cursors = { ...found, ...this.cursors }
    } catch {
      // as if nothing were stored
    }
  }

  private write(): void {
    if (this.timer !== undefined) this.clock.clearTimeout(this.timer)
    this.timer = undefined
    void this.read().then(async (all) => {
      const kept = all.slice(-ANSWERS_MAX)
      this.cursors = Object.fromEntries(kept)
      await (kept.length ? this.storage.setItem(INDEX, JSON.stringify(this.cursors)) : this.storage.removeItem(INDEX))
    }).catch(() => {}) // a full or forbidden storage must not stop the answer
  }
}
