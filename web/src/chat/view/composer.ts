/** The field for the prompt, its files, and the buttons Send and Stop. */

import type { PageClient } from '../client.js'
import { attach, Refused, type Attachment } from '../talk/attachments.js'
import { byId, h, iconButton } from './dom.js'

export interface Composed { prompt: string; content?: unknown; files: Attachment[] }

export interface ComposerActions {
  send(composed: Composed): void
  stop(): void
  editLast(): void
  problem(text: string): void
}

/** Otherwise each key makes the browser lay out the page, to learn the height of the text. */
const GROWS_BY_ITSELF = CSS.supports('field-sizing', 'content')

export class Composer {
  private readonly field = byId<HTMLTextAreaElement>('prompt')
  private readonly sendButton = byId<HTMLButtonElement>('send')
  private readonly stopButton = byId<HTMLButtonElement>('stop')
  private readonly attached = byId('attached')
  private files: Attachment[] = []
  private isRunning = false
  private uploads = 0

  constructor(private readonly client: PageClient, private readonly actions: ComposerActions) {
    const form = byId<HTMLFormElement>('composer')
    const input = byId<HTMLInputElement>('file')
    form.addEventListener('submit', (event) => {
      event.preventDefault()
      this.submit()
    })
    this.field.addEventListener('input', () => this.show())
    this.field.addEventListener('keydown', (event) => this.pressed(event))
    this.field.addEventListener('paste', (event) => {
      const files = [...(event.clipboardData?.files ?? [])]
      if (files.length) event.preventDefault()
      void this.add(files)
    })
    byId('examples').addEventListener('click', ({ target }) => {
      if (!(target instanceof HTMLButtonElement) || this.isRunning) return
      this.field.value = target.textContent ?? ''
      this.submit()
    })
    byId('attach').addEventListener('click', () => input.click())
    input.addEventListener('change', () => {
      void this.add([...(input.files ?? [])])
      input.value = ''
    })
    document.addEventListener('dragover', (event) => event.dataTransfer?.types.includes('Files') && event.preventDefault())
    document.addEventListener('drop', (event) => {
      if (!event.dataTransfer?.files.length) return
      event.preventDefault()
      void this.add([...event.dataTransfer.files])
    })
    this.stopButton.addEventListener('click', () => this.stop())
    document.addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && this.isRunning && !document.querySelector('dialog[open]')) this.stop()
    })
    this.show()
  }

  running(isRunning: boolean): void {
    if (isRunning === this.isRunning) return
    // A button that is switched off loses the focus to nowhere.
    const hadFocus = document.activeElement === this.stopButton || document.activeElement === this.sendButton
    this.isRunning = isRunning
    this.show()
    if (hadFocus) this.focus()
  }

  focus(): void {
    this.field.focus()
  }

  /** Put a prompt back that was not sent. */
  restore(prompt: string): void {
    this.field.value ||= prompt
    this.show()
  }

  private stop(): void {
    this.actions.stop()
    this.focus()
  }

  private submit(): void {
    const prompt = this.field.value.trim()
    if ((!prompt && !this.files.length) || this.isRunning || this.uploads) return
    const files = this.files
    this.field.value = ''
    this.files = []
    this.show()
    this.showFiles()
    const content = files.length ? [{ type: 'text', text: prompt || 'See the attached files.' }, ...files.map(({ part }) => part)] : undefined
    this.actions.send({ prompt: prompt || 'See the attached files.', content, files })
    this.focus()
  }

  private pressed(event: KeyboardEvent): void {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault()
      this.submit()
    } else if (event.key === 'ArrowUp' && !this.field.value) {
      event.preventDefault()
      this.actions.editLast()
    }
  }

  private async add(files: File[]): Promise<void> {
    for (const file of files) {
      this.uploads += 1
      this.showFiles(file.name)
      try {
        this.files.push(await attach(this.client, file, this.files.length))
      } catch (error) {
        this.actions.problem(error instanceof Refused ? error.message : `${file.name} was not uploaded: the server cannot be reached.`)
      }
      this.uploads -= 1
      this.showFiles()
      this.show()
    }
  }

  private showFiles(uploading = ''): void {
    const chips = this.files.map((each) => h('span', { class: 'chip' }, each.file.name,
      iconButton('close', `Remove ${each.file.name}`, () => {
        this.files = this.files.filter((other) => other !== each)
        this.showFiles()
        this.show()
      })))
    if (this.uploads && uploading) chips.push(h('span', { class: 'chip' }, `${uploading} …`))
    this.attached.replaceChildren(...chips)
    this.attached.hidden = !chips.length
  }

  private show(): void {
    this.sendButton.disabled = this.isRunning || this.uploads > 0 || (!this.field.value.trim() && !this.files.length)
    this.stopButton.disabled = !this.isRunning
    this.stopButton.classList.toggle('unused', !this.isRunning)
    this.sendButton.classList.toggle('unused', this.isRunning)
    if (GROWS_BY_ITSELF) return
    this.field.style.height = 'auto'
    this.field.style.height = `${this.field.scrollHeight + 2}px`
  }
}
