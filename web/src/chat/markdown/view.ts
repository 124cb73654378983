/**
 * Shows a growing Markdown text in an element.
 *
 * Blocks that are complete are not parsed again and not touched again. The last block is patched, so that a
 * selection survives. Between two blocks stands the text "\n\n": the text content of the element reads like the
 * source. The work of one call is bounded, whatever a model writes.
 */

import { LongBlock } from './long-block.js'
import { blocksOf, type Block, type Env } from './parser.js'
import { morph } from './morph.js'
import { sanitise } from './sanitise.js'

/** A line that defines a link: earlier blocks may use it. */
const DEFINITION = /^ {0,3}\[[^\]]+\]:/m
/** The source is taken in steps of so many characters, and no step begins when a call has lasted for so long. */
const STEP_CHARACTERS = 4_000
const STEPS_MS = 6
/** A block with more characters or tags is not parsed again when it grows: see long-block.ts. */
const BLOCK_CHARACTERS_MAX = 16_000
const BLOCK_TAGS_MAX = 3_000
/** A longer text is not parsed again from its beginning for links that are defined at its end. */
const WHOLE_CHARACTERS_MAX = 32_000
/** After a call that was slower, the next one waits for some times as long, so that the page stays usable. */
const SLOW_MS = 12
const SLOW_FACTOR = 4
/** Formulas are drawn for so long at once. */
const DRAW_MS = 8

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
  /** The source before this position is shown. */
  private upto = 0
  private notBefore = 0
  private long: LongBlock | undefined

  constructor(readonly element: HTMLElement) {}

  /**
   * Show `text`. `isFinal`: nothing follows, so links that were defined at the end are resolved everywhere. Returns
   * whether a part of the text is not shown yet: then call again in the next frame.
   */
  update(text: string, isFinal: boolean): boolean {
    if (text === this.text && isFinal === this.isFinal && this.upto === text.length) return false
    const began = performance.now()
    if (began < this.notBefore && !isFinal) return true
    const isResolving = isFinal && !this.isFinal && text.length <= WHOLE_CHARACTERS_MAX && DEFINITION.test(text)
    if (isResolving || !text.startsWith(this.text)) this.restart()
    if (!this.shown.length) this.element.textContent = ''
    this.text = text
    this.isFinal = isFinal
    let isWhole = false
    let tookMs = 0
    while (!isWhole && tookMs < STEPS_MS) {
      this.upto = Math.min(text.length, isResolving ? text.length : this.upto + STEP_CHARACTERS)
      isWhole = this.upto === text.length
      this.grow(text.slice(0, this.upto), isFinal && isWhole)
      tookMs = performance.now() - began
    }
    if (tookMs > SLOW_MS) this.notBefore = began + tookMs * SLOW_FACTOR
    return !isWhole
  }

  private grow(source: string, isEnd: boolean): void {
    if (this.long) {
      const { taken, isOver } = this.long.take(source.slice(this.settled), isEnd)
      this.settled += taken
      if (isOver) this.long = undefined
    }
    if (!this.long) this.parse(source)
    const done = isEnd ? this.shown.length : this.settledBlocks - Number(this.long !== undefined)
    for (; this.finished < done; this.finished += 1) finish(this.shown[this.finished])
  }

  private parse(source: string): void {
    const rest = source.slice(this.settled)
    // A link definition that is not complete must not stay: each turn begins with those that are.
    const blocks = blocksOf(rest, { references: { ...(this.env.references as object) } })
    const from = this.settledBlocks
    blocks.forEach((block, at) => this.show(from + at, block))
    for (const { element } of this.shown.splice(from + blocks.length)) {
      if (element.previousSibling instanceof Text) element.previousSibling.remove()
      element.remove()
    }
    this.settle(rest, blocks)
    const last = this.shown.at(-1)
    const isLong = source.length - this.settled > BLOCK_CHARACTERS_MAX || (last && last.html.split('<').length > BLOCK_TAGS_MAX)
    if (!last || !isLong) return
    const begin = lineStarts(rest)[blocks.at(-1)!.from] ?? 0
    this.long = new LongBlock(last.element, rest.slice(begin))
    last.html = '' // another text must not take it for its own
    this.settled = source.length
    this.settledBlocks = this.shown.length
  }

  private restart(): void {
    this.settled = this.settledBlocks = this.upto = 0
    this.long = undefined
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
  let until = performance.now() + DRAW_MS
  for (const place of places) {
    await draw(place)
    if (performance.now() < until) continue
    await new Promise((resolve) => setTimeout(resolve))
    until = performance.now() + DRAW_MS
  }
}
