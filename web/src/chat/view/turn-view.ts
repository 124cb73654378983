/** Shows one turn. It is painted at most once in a frame, and writes only what has changed. */

import { noteOf, picturesOf, type Turn } from '../talk/turn.js'
import type { Place } from '../talk/arrange.js'
import { MarkdownView } from '../markdown/view.js'
import { copy, h, iconButton, setText } from './dom.js'
import { fileView, type FileSource } from './files.js'
import { paintSoon, type Painted } from './frames.js'

export interface TurnActions {
  edit(turn: Turn, prompt: string): void
  /** The prompt is being edited, or no longer. */
  editing(turn: Turn, isEditing: boolean): void
  retry(turn: Turn): void
  sendAgain(turn: Turn): void
  readAgain(turn: Turn): void
  dismiss(turn: Turn): void
  version(turn: Turn, step: number): void
  /** The text is needed, because the turn comes into view. */
  load(turn: Turn): void
  files: FileSource
}

/** How far beyond the edges of the window turns are rendered. */
const MARGIN = '800px 0px'
const COPIED_MS = 1_500
/** Of a tool call or other data. */
const CALL_CHARACTERS_MAX = 20_000

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) views.get(target)?.come()
}, { rootMargin: MARGIN })
const views = new WeakMap<Element, TurnView>()

export class TurnView implements Painted {
  readonly element: HTMLElement
  private readonly prompt = h('div', { class: 'prompt-text', dir: 'auto' })
  private readonly attached = h('div', { class: 'attached' })
  private readonly ask = h('div', { class: 'ask' })
  private readonly versions = h('span', { class: 'versions' })
  private readonly reasoning = h('div', { class: 'reasoning-text', dir: 'auto' })
  private readonly reasoningName = h('summary', {})
  private readonly thoughts = h('details', { class: 'reasoning' }, this.reasoningName, this.reasoning)
  private readonly progress = h('div', { class: 'progress' })
  private readonly answer = h('div', { class: 'answer', 'data-test': 'answer', dir: 'auto' })
  private readonly calls = h('div', { class: 'calls' })
  private readonly files = h('div', { class: 'files' })
  private readonly note = h('p', { class: 'note' })
  private readonly noteActions = h('p', { class: 'note-actions' })
  private readonly tools: HTMLElement
  private readonly about = h('span', { class: 'about' })
  private readonly line = h('p', { class: 'figures' })
  private readonly markdown = new MarkdownView(this.answer)
  private isNear = false
  /** The text of the answer, as long as it is not rendered. */
  private plain = ''
  private shownFiles = -1
  private shownCalls = ''
  private shownPrompt = ''
  private shownData: unknown
  private shownAttached: unknown
  private shownVersion: string | undefined

  constructor(readonly turn: Turn, private readonly actions: TurnActions, private readonly figures: (turn: Turn) => string) {
    const promptTools = h('div', { class: 'tools' },
      iconButton('edit', 'Edit and ask again', () => this.edit()),
      iconButton('copy', 'Copy the prompt', () => void this.copied(this.turn.prompt)), this.versions)
    this.ask.append(this.prompt, this.attached)
    this.tools = h('div', { class: 'tools' },
      iconButton('copy', 'Copy the answer', () => void this.copied(this.turn.text)),
      iconButton('retry', 'Ask again', () => actions.retry(turn)), this.about)
    this.thoughts.hidden = this.progress.hidden = this.note.hidden = this.noteActions.hidden = true
    this.element = h('article', { class: 'turn', 'aria-label': 'Prompt and answer' },
      this.ask, promptTools, this.thoughts, this.progress, this.answer, this.calls, this.files, this.note,
      this.noteActions, this.tools, this.line)
    this.answer.addEventListener('click', (event) => this.clicked(event))
    this.thoughts.addEventListener('toggle', () => paintSoon(this))
    views.set(this.element, this)
    this.paint()
  }

  /** Render now also if nobody looks: for a turn that is being written. */
  come(): void {
    this.isNear = true
    seen.unobserve(this.element)
    if (!this.turn.isLoaded && this.turn.status !== 'unsent') this.actions.load(this.turn)
    paintSoon(this)
  }

  /** A turn is watched only while its stretch is near: in each frame a browser looks at all that it watches. */
  near(isNear: boolean): void {
    if (isNear && !this.isNear) seen.observe(this.element)
    else seen.unobserve(this.element)
  }

  at({ versions, id }: Place): void {
    const number = versions.indexOf(id) + 1
    const shown = versions.length < 2 ? '' : `${number} ${versions.length}`
    if (shown === this.shownVersion) return
    this.shownVersion = shown
    this.versions.hidden = versions.length < 2
    if (versions.length < 2) return
    const step = (by: number, icon: string, label: string) => {
      const button = iconButton(icon, label, () => this.actions.version(this.turn, by))
      button.disabled = number + by < 1 || number + by > versions.length
      return button
    }
    this.versions.replaceChildren(step(-1, 'left', 'The version before'), `${number} / ${versions.length}`, step(1, 'right', 'The next version'))
  }

  remove(): void {
    seen.unobserve(this.element)
    this.element.remove()
  }

  focus(): void {
    this.element.scrollIntoView({ block: 'center' })
  }

  paint(): void {
    const { turn } = this
    if (turn.isActive) this.isNear = true // its reader waits for it, also in a tab that is not in front
    this.element.dataset.state = stateOf(turn)
    this.element.classList.toggle('problem', Boolean(turn.problem))
    const prompt = turn.isRecording ? 'Recording' : turn.prompt
    if (this.shownPrompt !== prompt) this.prompt.textContent = this.shownPrompt = prompt
    this.element.classList.toggle('recorded', turn.isRecording)
    if (this.shownAttached !== turn.content) this.showAttached()
    if (this.isNear) {
      if (this.markdown.update(turn.text, !turn.isActive)) paintSoon(this)
    } else if (this.plain !== turn.text) this.answer.textContent = this.plain = turn.text
    this.paintReasoning()
    this.paintProgress()
    this.paintCalls()
    if (this.shownFiles !== turn.files.length) this.showFiles()
    this.paintNote()
    setText(this.about, aboutOf(turn))
    this.tools.hidden = turn.isActive
    const figures = this.figures(turn)
    this.line.hidden = !figures
    setText(this.line, figures)
  }

  /** Turn the bubble into a field. Enter asks again, Escape leaves the prompt as it was. */
  edit(): void {
    if (this.turn.isRecording || this.ask.querySelector('form')) return
    const field = h('textarea', { 'aria-label': 'Edit the prompt', rows: Math.min(12, this.turn.prompt.split('\n').length + 1) })
    field.value = this.turn.prompt
    this.actions.editing(this.turn, true)
    const close = () => {
      this.actions.editing(this.turn, false)
      form.replaceWith(this.prompt)
      this.ask.classList.remove('editing')
      document.getElementById('prompt')?.focus()
    }
    const form = h('form', { class: 'edit' }, field, h('div', { class: 'buttons' },
      h('button', { type: 'button', onclick: close }, 'Cancel'), h('button', { type: 'submit', class: 'main' }, 'Ask again')))
    form.addEventListener('submit', (event) => {
      event.preventDefault()
      const prompt = field.value.trim()
      if (prompt) this.actions.edit(this.turn, prompt) // while its place is held
      close()
    })
    field.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
        event.preventDefault()
        form.requestSubmit()
      } else if (event.key === 'Escape') {
        event.stopPropagation()
        close()
      }
    })
    this.prompt.replaceWith(form)
    this.ask.classList.add('editing')
    field.focus()
  }

  private paintReasoning(): void {
    const { turn } = this
    this.thoughts.hidden = !turn.reasoning
    if (!turn.reasoning) return
    const isThinking = turn.isActive && !turn.text
    const seconds = (turn.reasonedTo - turn.reasonedFrom) / 1000
    const time = seconds >= 0.1 ? ` for ${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s` : ''
    setText(this.reasoningName, isThinking ? `Thinking${time}…` : `Thought${time}`)
    if (!this.thoughts.open) return
    // Append, so that a selection stays.
    const node = this.reasoning.firstChild
    if (node instanceof Text && turn.reasoning.startsWith(node.data)) {
      if (turn.reasoning.length > node.data.length) node.appendData(turn.reasoning.slice(node.data.length))
    } else this.reasoning.textContent = turn.reasoning
  }

  private paintProgress(): void {
    const stages = this.turn.isActive ? this.turn.progress : []
    this.progress.hidden = !stages.length
    stages.forEach(({ agent, stage, percentage }, at) => {
      const line = this.progress.children[at] ?? h('label', {}, h('span', {}), h('progress', { max: 100 }))
      if (!line.isConnected) this.progress.append(line)
      const percent = Math.min(100, Math.max(0, percentage || 0))
      setText(line.firstElementChild!, `${agent ? `${agent}: ` : ''}${stage || 'Working'}, ${Math.round(percent)} %`)
      ;(line.lastElementChild as HTMLProgressElement).value = percent
    })
    while (this.progress.children.length > stages.length) this.progress.lastElementChild!.remove()
  }

  /** Tool calls, and other data of the answer. */
  private paintCalls(): void {
    const { calls, data } = this.turn
    const all = calls.map((call) => `${call.name} ${call.arguments.length}`).join()
    if (all === this.shownCalls && data === this.shownData) return
    this.shownCalls = all
    this.shownData = data
    const rows = [
      ...calls.map((call) => [`Tool call: ${call.name || '…'}`, pretty(call.arguments)]),
      ...data.map(({ name, value }) => [`Data: ${name}`, short(JSON.stringify(value, null, 2) ?? '')]),
    ]
    rows.forEach(([name, text], at) => {
      const view = this.calls.children[at] ?? h('details', { class: 'call' }, h('summary', {}), h('pre', { tabindex: 0 }))
      if (!view.isConnected) this.calls.append(view)
      setText(view.firstElementChild!, name)
      setText(view.lastElementChild!, text)
    })
    while (this.calls.children.length > rows.length) this.calls.lastElementChild!.remove()
  }

  private showAttached(): void {
    const { turn } = this
    this.shownAttached = turn.content
    const pictures = picturesOf(turn.content).map((url) => ({ name: 'attached picture', media_type: 'image/*', url }))
    const files = (turn.note.files ?? []).map((file) => this.actions.files.stored(file))
    this.attached.replaceChildren(...pictures.map((each) => fileView(each, this.actions.files)), ...files)
  }

  private showFiles(): void {
    this.shownFiles = this.turn.files.length
    this.files.replaceChildren(...this.turn.files.map((each) => fileView(each, this.actions.files)))
  }

  private paintNote(): void {
    const { turn } = this
    const { text, isProblem } = noteOf(turn)
    const isWaiting = turn.isActive && (turn.text || turn.reasoning || turn.progress.length > 0) && !isProblem
    const shown = isWaiting ? '' : text
    this.note.hidden = !shown
    setText(this.note, shown)
    this.note.classList.toggle('bad', isProblem)
    const key = isProblem ? `${turn.status} ${turn.problem}` : ''
    if (this.noteActions.dataset.key === key) return
    this.noteActions.dataset.key = key
    this.noteActions.hidden = !key
    const again = () => {
      if (turn.status === 'unsent') this.actions.sendAgain(turn)
      else if (turn.problem) this.actions.readAgain(turn)
      else this.actions.retry(turn)
    }
    this.noteActions.replaceChildren(
      h('button', { type: 'button', onclick: again }, 'Try again'),
      ...(turn.status === 'unsent' ? [h('button', { type: 'button', onclick: () => this.actions.dismiss(turn) }, 'Discard')] : []))
  }

  private clicked(event: MouseEvent): void {
    const button = (event.target as Element).closest('.copy-code')
    if (button) void this.copied(button.parentElement?.querySelector('code')?.textContent ?? '', button)
  }

  private async copied(text: string, button: Element | null = document.activeElement): Promise<void> {
    if (!(await copy(text)) || !button) return
    button.classList.add('done')
    setTimeout(() => button.classList.remove('done'), COPIED_MS)
  }
}

function stateOf(turn: Turn): string {
  if (turn.status === 'unsent') return 'unsent'
  if (!turn.isLoaded && !turn.problem) return 'loading'
  return turn.isActive ? 'running' : turn.status
}

/** The model's name, and what the answer took. */
function aboutOf(turn: Turn): string {
  const parts = [turn.model]
  if (turn.usage) parts.push(`${turn.usage.completion_tokens.toLocaleString('en')} tokens`)
  const seconds = turn.tookS || (turn.endedAt ? turn.endedAt - turn.created_at : -1)
  if (seconds >= 0) parts.push(`${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`)
  if (turn.isArchived) parts.push('only in this browser')
  return parts.filter(Boolean).join(' · ')
}

const short = (text: string): string =>
  text.length > CALL_CHARACTERS_MAX ? `${text.slice(0, CALL_CHARACTERS_MAX)}… (${text.length.toLocaleString('en')} characters)` : text

function pretty(json: string): string {
  if (json.length > CALL_CHARACTERS_MAX) return short(json)
  try {
    return JSON.stringify(JSON.parse(json), null, 2)
  } catch {
    return json // not complete yet, or no JSON
  }
}
