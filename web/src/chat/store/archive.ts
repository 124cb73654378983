/**
 * The answers that this browser has shown, in IndexedDB: a conversation stays readable here when the server no
 * longer keeps it. Bounded; the oldest go first. Without IndexedDB nothing is kept, and nothing fails.
 */

const DATABASE = 'tailrace'
const STORE = 'turns'
/** Of one owner: the most answers, and the most characters of all of them and of one of them, with all that belongs to it. */
const TURNS_MAX = 2_000
const ALL_CHARACTERS_MAX = 50_000_000
const CHARACTERS_MAX = 500_000

/** What the list of conversations needs. */
export interface Summary {
  id: string
  session: string
  prompt: string
  created_at: number
  metadata: Record<string, unknown>
}

export interface Kept extends Summary {
  text: string
  model: string
  status: string
  /** Reasoning, pictures, calls and figures; left out where they are too large. */
  rest?: Record<string, unknown>
}

interface Row extends Kept { owner: string; size: number }
type Noted = Summary & { size: number }

export class Archive {
  private opened: Promise<IDBDatabase | null> | undefined
  /** Everything of this owner, without the texts: they may take much memory. */
  private noted: Promise<Map<string, Noted>> | undefined
  private name: string

  constructor(owner: string) {
    this.name = owner
  }

  get owner(): string {
    return this.name
  }

  set owner(owner: string) {
    if (owner !== this.name) this.noted = undefined
    this.name = owner
  }

  async put(kept: Kept): Promise<void> {
    const row: Row = { ...kept, owner: this.name, text: kept.text.slice(0, CHARACTERS_MAX), size: 0 }
    row.size = JSON.stringify(row).length
    if (row.size > CHARACTERS_MAX) {
      delete row.rest
      row.size = JSON.stringify(row).length
    }
    const noted = await this.all()
    await this.run('readwrite', (store) => store.put(row))
    noted.set(row.id, summaryOf(row))
    await this.trim(noted)
  }

  session(session: string): Promise<Kept[]> {
    return this.run<Row[]>('readonly', (store) => store.index('session').getAll([this.name, session])).then((rows) => rows ?? [])
  }

  async summaries(): Promise<Summary[]> {
    return [...(await this.all()).values()]
  }

  async remove(test: (kept: Summary) => boolean): Promise<void> {
    const noted = await this.all()
    await this.drop(noted, [...noted.values()].filter(test))
  }

  private all(): Promise<Map<string, Noted>> {
    return (this.noted ??= this.load())
  }

  private async load(): Promise<Map<string, Noted>> {
    const noted = new Map<string, Noted>()
    await this.run('readonly', (store) => store.index('owner').openCursor(this.name), (cursor: IDBCursorWithValue | null) => {
      if (!cursor) return true
      noted.set(cursor.value.id, summaryOf(cursor.value))
      cursor.continue()
      return false
    })
    await this.trim(noted)
    return noted
  }

  private async trim(noted: Map<string, Noted>): Promise<void> {
    let characters = 0
    const newestFirst = [...noted.values()].sort((a, b) => b.created_at - a.created_at)
    const tooMany = newestFirst.filter(({ size }, at) => {
      characters += size
      return at >= TURNS_MAX || characters > ALL_CHARACTERS_MAX
    })
    if (tooMany.length) await this.drop(noted, tooMany)
  }

  private async drop(noted: Map<string, Noted>, which: Summary[]): Promise<void> {
    for (const { id } of which) {
      noted.delete(id)
      await this.run('readwrite', (store) => store.delete(id))
    }
  }

  /** `isDone` is asked at each result of the request. */
  private async run<T>(
    mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest, isDone: (result: any) => boolean = () => true,
  ): Promise<T | undefined> {
    try {
      const database = await (this.opened ??= open())
      if (!database) return undefined
      const request = act(database.transaction(STORE, mode).objectStore(STORE))
      return await new Promise((resolve, reject) => {
        request.onsuccess = () => { if (isDone(request.result)) resolve(request.result as T) }
        request.onerror = () => reject(request.error)
      })
    } catch {
      return undefined // refused or full: the page works without
    }
  }
}

const summaryOf = ({ id, session, prompt, created_at, metadata, size }: Row): Noted =>
  ({ id, session, prompt, created_at, metadata, size })

function open(): Promise<IDBDatabase | null> {
  return new Promise((resolve) => {
    try {
      const request = indexedDB.open(DATABASE, 1)
      request.onupgradeneeded = () => {
        const store = request.result.createObjectStore(STORE, { keyPath: 'id' })
        store.createIndex('owner', 'owner')
        store.createIndex('session', ['owner', 'session'])
      }
      request.onsuccess = () => resolve(request.result)
      request.onerror = () => resolve(null)
      request.onblocked = () => resolve(null)
    } catch {
      resolve(null)
    }
  })
}
