/**
 * The answers that this browser has shown, in IndexedDB: a conversation stays readable here when the server no
 * longer keeps it. Bounded; the oldest go first. Without IndexedDB nothing is kept, and nothing fails.
 */

const DATABASE = 'tailrace'
const STORE = 'turns'
/** The most answers that are kept for one owner, and the most characters of one answer with all that belongs to it. */
const TURNS_MAX = 2_000
const CHARACTERS_MAX = 500_000

export interface Kept {
  id: string
  owner: string
  session: string
  prompt: string
  text: string
  model: string
  status: string
  created_at: number
  metadata: Record<string, unknown>
  /** Reasoning, pictures, calls and figures; left out where they are too large. */
  rest?: Record<string, unknown>
}

export class Archive {
  private opened: Promise<IDBDatabase | null> | undefined

  constructor(public owner: string) {}

  async put(kept: Omit<Kept, 'owner'>): Promise<void> {
    const row: Kept = { ...kept, owner: this.owner, text: kept.text.slice(0, CHARACTERS_MAX) }
    if (JSON.stringify(kept).length > CHARACTERS_MAX) delete row.rest
    await this.run('readwrite', (store) => store.put(row))
  }

  async session(session: string): Promise<Kept[]> {
    return (await this.all()).filter((each) => each.session === session)
  }

  /** Everything of this owner, from old to new. */
  async all(): Promise<Kept[]> {
    const rows = (await this.run<Kept[]>('readonly', (store) => store.index('owner').getAll(this.owner))) ?? []
    rows.sort((a, b) => a.created_at - b.created_at)
    const tooMany = rows.splice(0, Math.max(0, rows.length - TURNS_MAX))
    for (const each of tooMany) void this.run('readwrite', (store) => store.delete(each.id))
    return rows
  }

  async remove(test: (kept: Kept) => boolean): Promise<void> {
    const rows = (await this.run<Kept[]>('readonly', (store) => store.index('owner').getAll(this.owner))) ?? []
    for (const each of rows.filter(test)) await this.run('readwrite', (store) => store.delete(each.id))
  }

  private async run<T>(mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest): Promise<T | undefined> {
    try {
      const database = await (this.opened ??= open())
      if (!database) return undefined
      const request = act(database.transaction(STORE, mode).objectStore(STORE))
      return await new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result as T)
        request.onerror = () => reject(request.error)
      })
    } catch {
      return undefined // refused or full: the page works without
    }
  }
}

function open(): Promise<IDBDatabase | null> {
  return new Promise((resolve) => {
    try {
      const request = indexedDB.open(DATABASE, 1)
      request.onupgradeneeded = () => {
        request.result.createObjectStore(STORE, { keyPath: 'id' }).createIndex('owner', 'owner')
      }
      request.onsuccess = () => resolve(request.result)
      request.onerror = () => resolve(null)
      request.onblocked = () => resolve(null)
    } catch {
      resolve(null)
    }
  })
}
