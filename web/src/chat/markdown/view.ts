/**
 * Shows a growing Markdown text in an element.
 *
 * Blocks that are complete are not parsed again and not touched again. The last block is patched, so that a
 * selection survives. Between two blocks stands the text "\n\n": the text content of the element reads like the
 * source.
 */

import { blocksOf, type Block, type Env } from './parser.js'
import { morph } from './morph.js'
import { sanitise } from './sanitise.js'

/** A line that defines a link: earlier blocks may use it. */
const DEFINITION = /^ {0,3}\[[^\]]+\]:/m

interface Shown { html: string; element: HTMLElement }

export class MarkdownView {
  private text = ''
  private env: Env = {}
  /** The blocks before this position of the source are complete. */
  private settled = 0
  private settledBlocks = 0
  private shown: Shown[] = []
  private isFinal = false
  private finished = 0

  constructor(readonly element: HTMLElement) {}

  /** Show `text`. `isFinal`: nothing follows, so links that were defined at the end are resolved everywhere. */
  update(text: string, isFinal: boolean): void {
    if (text === this.text && isFinal === this.isFinal) return
    if (!text.startsWith(this.text) || (isFinal && DEFINITION.test(text))) this.restart()
    if (!this.shown.length) this.element.textContent = ''
    this.text = text
    this.isFinal = isFinal
    const rest = text.slice(this.settled)
    // A link definition that is not complete must not stay: each turn begins with those that are.
    const blocks = blocksOf(rest, { references: { ...(this.env.references as object) } })
    const from = this.settledBlocks
    blocks.forEach((block, at) => this.show(from + at, block))
    for (const { element } of this.shown.splice(from + blocks.length)) {
      if (element.previousSibling instanceof Text) element.previousSibling.remove()
      element.remove()
    }
    this.settle(rest, blocks)
    const done = isFinal ? this.shown.length : this.settledBlocks
    for (; this.finished < done; this.finished += 1) finish(this.shown[this.finished])
  }

  private restart(): void {
    this.settled = this.settledBlocks = 0
    this.env = {}
  }

  private show(at: number, block: Block): void {
    const known = this.shown[at]
    if (known?.html === block.html) return
    const fragment = sanitise(block.html)
    this.finished = Math.min(this.finished, at)
    if (known) {
      morph(known.element, fragment)
      known.html = block.html
    } else {
      const element = document.createElement('div')
      element.className = 'block'
      element.append(fragment)
      if (at) this.element.append('\n\n')
      this.element.append(element)
      this.shown.push({ html: block.html, element })
    }
    if (block.html.includes('data-tex=')) void drawFormulas(this.shown[at].element)
  }

  /** A block is complete when another block with a whole line follows: until then a list may go on, for example. */
  private settle(rest: string, blocks: Block[]): void {
    const starts = lineStarts(rest)
    let complete = blocks.length - 1
    while (complete > 0 && !rest.slice(starts[blocks[complete].from] ?? rest.length).trimStart().includes('\n')) complete -= 1
    if (complete <= 0) return
    const end = starts[blocks[complete].from] ?? 0
    blocksOf(rest.slice(0, end), this.env) // keeps the link definitions
    this.settled += end
    this.settledBlocks += complete
  }
}

function lineStarts(text: string): number[] {
  const starts = [0]
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) starts.push(at + 1)
  return starts
}

/** Colours for code and a button to copy it, once the block is complete. */
function finish({ element }: Shown): void {
  for (const pre of element.querySelectorAll('pre')) {
    const code = pre.querySelector('code')
    if (!code || pre.querySelector('button')) continue
    code.tabIndex = 0 // so that a keyboard can scroll it
    // Without text: the text of an answer is what the model wrote.
    const button = document.createElement('button')
    button.type = 'button'
    button.className = 'copy-code icon icon-copy'
    button.setAttribute('aria-label', 'Copy this code')
    button.title = 'Copy this code'
    pre.append(button)
    void colour(pre, code)
  }
  for (const table of element.querySelectorAll('table')) table.tabIndex = 0
}

async function colour(pre: HTMLElement, code: HTMLElement): Promise<void> {
  const language = pre.dataset.language?.toLowerCase() ?? ''
  if (!language) return
  const { highlighted } = await import('./highlight.js')
  const text = code.textContent ?? ''
  const html = highlighted(text, language)
  if (html === undefined) return
  await unselected(code)
  if (code.textContent === text) code.replaceChildren(sanitise(html))
}

/** Colours replace the text, and that would drop a selection in it: wait until the reader has copied it. */
function unselected(code: Element): Promise<void> {
  return new Promise((resolve) => {
    const look = () => {
      const selection = document.getSelection()
      if (selection && !selection.isCollapsed && selection.containsNode(code, true)) return
      document.removeEventListener('selectionchange', look)
      resolve()
    }
    document.addEventListener('selectionchange', look)
    look()
  })
}

async function drawFormulas(element: HTMLElement): Promise<void> {
  const places = element.querySelectorAll<HTMLElement>('.math')
  if (!places.length) return
  const { draw } = await import('./math.js')
  for (const place of places) await draw(place)
}
