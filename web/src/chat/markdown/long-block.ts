/**
 * The rest of a block that is too long to be parsed again for each of its tokens: it goes on as plain text, in pieces of
 * which only the last one grows. A block of code stays code; a paragraph, list or table goes on below what was rendered.
 */

const PIECE_CHARACTERS_MAX = 8_000
/** A line that may become the end of a block of code. */
const FENCE_BEGUN = /^ {0,3}[`~]*[ \t]*$/
const FENCE = /^ {0,3}(`{3,}|~{3,})[^\n]*\n/
const BLANK_LINE = /\n[ \t]*\n/

export class LongBlock {
  private readonly place: Element
  private readonly closing: RegExp | undefined
  private piece: Text | undefined
  /** The text so far ends with a line break. */
  private isAtLine = false

  /** `source` is what `element` shows already. */
  constructor(element: Element, source: string) {
    const code = element.querySelector('pre > code')
    const fence = code && FENCE.exec(source)
    this.place = fence ? code : element
    this.isAtLine = source.endsWith('\n')
    if (!fence) {
      // Rendered text has no white space at its end, and the words that follow need it.
      element.append(/\s*$/.exec(source)![0])
      return
    }
    const mark = fence[1][0] === '~' ? '~' : '`'
    this.closing = new RegExp(`(?:^|\\n) {0,3}${mark}{${fence[1].length},}[ \\t]*(?:\\n|$)`)
    code.replaceChildren()
    this.append(source.slice(fence[0].length))
  }

  /** Show more. Returns how much of `text` belongs to the block, and whether the block ends there. */
  take(text: string, isFinal: boolean): { taken: number; isOver: boolean } {
    // The line break before `text` may be the first half of what ends the block.
    const before = this.isAtLine ? '\n' : ''
    const end = (this.closing ?? BLANK_LINE).exec(before + text)
    if (end) {
      const at = Math.max(0, end.index - before.length + (this.closing && end[0][0] === '\n' ? 1 : 0))
      this.append(text.slice(0, at))
      return { taken: Math.max(at, end.index + end[0].length - before.length), isOver: true }
    }
    const line = text.lastIndexOf('\n') + 1
    const isWhole = isFinal || !this.closing || !(line || this.isAtLine) || !FENCE_BEGUN.test(text.slice(line))
    const taken = isWhole ? text.length : line
    this.append(text.slice(0, taken))
    return { taken, isOver: false }
  }

  private append(text: string): void {
    for (let at = 0; at < text.length; ) {
      if (!this.piece || this.piece.length >= PIECE_CHARACTERS_MAX) {
        const span = document.createElement('span')
        span.className = 'piece'
        this.piece = span.appendChild(document.createTextNode(''))
        this.place.append(span)
      }
      let to = Math.min(text.length, at + PIECE_CHARACTERS_MAX - this.piece.length)
      // Each piece is a block of its own, so it should end with a line; very long lines are cut.
      const line = text.indexOf('\n', to - 1) + 1
      if (to < text.length && line && line - at < 2 * PIECE_CHARACTERS_MAX) to = line
      this.piece.appendData(text.slice(at, to))
      at = to
    }
    if (text) this.isAtLine = text.endsWith('\n')
  }
}
