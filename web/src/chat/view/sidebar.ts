/** The list of conversations, with search, rename and delete. */

import type { Directory, Listed } from '../talk/directory.js'
import { explain } from '../talk/explain.js'
import { byId, h, iconButton } from './dom.js'

const ROWS_MAX = 300
const LOOK_MS = 15_000

export class Sidebar {
  private readonly list = byId('conversations')
  private readonly search = byId<HTMLInputElement>('search')
  private shown = ''
  private open = ''
  private isReading = false
  private isStale = false

  constructor(
    private readonly directory: () => Directory, private readonly enter: (session: string) => void,
    private readonly removed: (session: string) => void, private readonly renamed: (session: string) => void,
    private readonly problem: (text: string) => void,
  ) {
    this.search.addEventListener('input', () => this.refresh())
    setInterval(() => document.hidden || this.refresh(), LOOK_MS)
  }

  /** `session` is the open conversation. */
  mark(session: string): void {
    this.open = session
    for (const row of this.list.querySelectorAll<HTMLElement>('li')) this.markRow(row)
  }

  refresh(): void {
    this.isStale = true
    if (!this.isReading) void this.read()
  }

  private async read(): Promise<void> {
    this.isReading = true
    while (this.isStale) {
      this.isStale = false
      try {
        this.show((await this.directory().list(this.search.value)).slice(0, ROWS_MAX))
      } catch (error) {
        this.problem(explain(error))
      }
    }
    this.isReading = false
  }

  private show(all: Listed[]): void {
    const key = JSON.stringify(all.map(({ session, title }) => [session, title]))
    if (key === this.shown || this.list.querySelector('form')) return
    this.shown = key
    this.list.replaceChildren(...all.map((each) => this.row(each)))
    byId('no-conversations').hidden = all.length > 0
    byId('no-conversations').textContent = this.search.value ? 'No conversation has these words.' : 'Conversations appear here.'
  }

  private row(listed: Listed): HTMLElement {
    const { session, title } = listed
    const link = h('a', { href: `#${encodeURIComponent(session)}`, 'data-test': 'conversation', dir: 'auto', title }, title)
    link.addEventListener('click', (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return
      event.preventDefault()
      this.enter(session)
    })
    const row = h('li', { 'data-session': session }, link,
      iconButton('edit', `Rename “${title}”`, () => this.rename(row, listed)),
      iconButton('delete', `Delete “${title}”`, () => this.confirm(row, listed)))
    this.markRow(row)
    return row
  }

  private markRow(row: HTMLElement): void {
    if (row.dataset.session === this.open) row.firstElementChild!.setAttribute('aria-current', 'page')
    else row.firstElementChild!.removeAttribute('aria-current')
  }

  private rename(row: HTMLElement, { session, title }: Listed): void {
    const field = h('input', { 'aria-label': 'Name of the conversation', maxlength: 80 })
    field.value = title
    const close = () => {
      form.remove()
      row.classList.remove('renaming')
      this.shown = ''
      this.refresh()
    }
    const form = h('form', {}, field)
    form.addEventListener('submit', (event) => {
      event.preventDefault()
      if (field.value.trim() !== title) {
        this.directory().rename(session, field.value)
        this.renamed(session)
      }
      close()
    })
    field.addEventListener('blur', () => form.isConnected && form.requestSubmit())
    field.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape') return
      event.stopPropagation()
      field.value = title
      form.requestSubmit()
    })
    row.classList.add('renaming')
    row.prepend(form)
    field.select()
  }

  private confirm(row: HTMLElement, { session, title }: Listed): void {
    const dialog = byId<HTMLDialogElement>('confirm')
    byId('confirm-text').textContent = `Delete “${title}” and all its answers, on the server and in this browser?`
    dialog.addEventListener('close', () => {
      if (dialog.returnValue !== 'yes') return
      row.remove()
      this.shown = ''
      this.directory().remove(session).then(() => this.removed(session), (error) => this.problem(explain(error)))
    }, { once: true })
    dialog.returnValue = ''
    dialog.showModal()
  }
}
