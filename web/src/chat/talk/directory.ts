/** The list of conversations: the sessions of the server's listing, and those that only this browser has kept. */

import type { PageClient } from '../client.js'
import type { Archive } from '../store/archive.js'
import { asSession, ofBrowser } from '../store/memory.js'
import type { Entry, PageNote } from './turn.js'

const TITLES = 'tailrace.titles'
const TITLES_MAX = 500
/** Pages of the listing; a page has 100 answers. */
const PAGES_MAX = 5
const TITLE_CHARACTERS_MAX = 80

export interface Listed { session: string; title: string; newest: number; text: string }

export class Directory {
  private entries = new Map<string, Entry>()
  private isRead = false

  constructor(private readonly client: PageClient, private readonly archive: Archive) {}

  /** Newest first. `search` looks in titles and prompts. */
  async list(search: string): Promise<Listed[]> {
    await this.read()
    const found = new Map<string, Listed & { first: number }>()
    const kept = (await this.archive.summaries()).filter(({ id }) => !this.entries.has(id))
    for (const { session, prompt: written, created_at, metadata } of [...this.entries.values(), ...kept]) {
      if (!session || !asSession(session)) continue
      const listed = found.get(session) ?? { session, title: '', newest: 0, text: '', first: Infinity }
      const { title, recording } = (metadata?.page as PageNote | undefined) ?? {}
      const prompt = recording ? 'Recording' : written
      if (created_at >= listed.newest && title) listed.title = title
      if (created_at < listed.first) listed.first = created_at
      if (created_at <= listed.first) listed.text = `${prompt}\n${listed.text}`
      else listed.text += `\n${prompt}`
      listed.newest = Math.max(listed.newest, created_at)
      found.set(session, listed)
    }
    const own = titles()
    for (const each of found.values()) {
      each.title = own[each.session] || each.title || firstLine(each.text) || 'New chat'
    }
    const wanted = search.trim().toLowerCase()
    return [...found.values()]
      .filter(({ title, text }) => !wanted || `${title}\n${text}`.toLowerCase().includes(wanted))
      .sort((a, b) => b.newest - a.newest)
  }

  /** A name that this browser remembers, and that goes to other devices with the next prompt. */
  rename(session: string, title: string): void {
    const all = Object.entries(titles()).filter(([name]) => name !== session)
    const clean = title.trim().slice(0, TITLE_CHARACTERS_MAX)
    if (clean) all.push([session, clean])
    ofBrowser.setJson(TITLES, Object.fromEntries(all.slice(-TITLES_MAX)))
  }

  titleOf(session: string): string {
    return titles()[session] ?? ''
  }

  async remove(session: string): Promise<void> {
    await this.client.json(`/v1/sessions/${encodeURIComponent(session)}`, { method: 'DELETE' })
    for (const entry of this.entries.values()) if (entry.session === session) this.entries.delete(entry.id)
    await this.archive.remove((kept) => kept.session === session)
    this.rename(session, '')
  }

  private async read(): Promise<void> {
    let before = ''
    const found: Entry[] = []
    for (let page = 0; page < (this.isRead ? 1 : PAGES_MAX); page += 1) {
      const path = `/v1/generations${before && `?before=${encodeURIComponent(before)}`}`
      const { generations, next_before } = await this.client.json<{ generations: Entry[]; next_before: string | null }>(path)
      found.push(...generations)
      before = next_before ?? ''
      if (!before) {
        this.entries.clear()
        break
      }
    }
    for (const entry of found) this.entries.set(entry.id, entry)
    this.isRead = true
  }
}

function titles(): Record<string, string> {
  const found = ofBrowser.getJson<unknown>(TITLES, {})
  return found && typeof found === 'object' ? (found as Record<string, string>) : {}
}

function firstLine(text: string): string {
  const line = text.trim().split('\n')[0]
  return line.length > TITLE_CHARACTERS_MAX ? `${line.slice(0, TITLE_CHARACTERS_MAX)}…` : line
}
