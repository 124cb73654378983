/**
 * Markdown to HTML, block by block. HTML in the source stays text. Formulas become placeholders, which math.ts
 * fills. What comes out goes through sanitise.ts, whatever this module promises.
 */

import MarkdownIt from 'markdown-it'

const md = new MarkdownIt({ html: false, linkify: true, breaks: true, typographer: false })
/** Headings of an answer stand below those of the page. */
const HEADING_SHIFT = 2
const PICTURE = /^data:image\/(png|jpeg|gif|webp);base64,/i

type Tokens = ReturnType<typeof md.parse>
export type Env = Record<string, unknown>
export interface Block {
  html: string
  /** Where the block begins and ends in the source, as lines. */
  from: number
  to: number
}

md.linkify.set({ fuzzyLink: false, fuzzyEmail: false })
md.inline.ruler.before('escape', 'math', inlineMath)
md.block.ruler.before('fence', 'math', blockMath, { alt: ['paragraph', 'reference', 'blockquote', 'list'] })
md.renderer.rules.math = (tokens, at) => {
  const { content, markup } = tokens[at]
  const tex = md.utils.escapeHtml(content)
  const isBlock = markup === 'block'
  return `<span class="math${isBlock ? ' math-block' : ''}" data-tex="${tex}">${tex}</span>`
}
// A picture of another host would tell that host who reads the answer. It is a link instead.
md.renderer.rules.image = (tokens, at) => {
  const source = String(tokens[at].attrGet('src') ?? '')
  const label = tokens[at].content || 'picture'
  const escape = md.utils.escapeHtml
  return PICTURE.test(source)
    ? `<img src="${escape(source)}" alt="${escape(label)}">`
    : `<a href="${escape(source)}">${escape(label)}</a>`
}
md.renderer.rules.heading_open = (tokens, at) => `<${headingOf(tokens[at].tag)}>`
md.renderer.rules.heading_close = (tokens, at) => `</${headingOf(tokens[at].tag)}>\n`
md.renderer.rules.fence = (tokens, at) => code(tokens[at].content, tokens[at].info)
md.renderer.rules.code_block = (tokens, at) => code(tokens[at].content, '')
// The alignment of a cell is a style in markdown-it, and the page's policy forbids inline styles.
for (const rule of ['th_open', 'td_open']) {
  md.renderer.rules[rule] = (tokens, at) => {
    const side = /text-align:(\w+)/.exec(String(tokens[at].attrGet('style') ?? ''))?.[1]
    return `<${tokens[at].tag}${side ? ` class="align-${side}"` : ''}>`
  }
}

/** `env` holds the link definitions: give the same object for all parts of one answer. */
export function blocksOf(source: string, env: Env): Block[] {
  const tokens = md.parse(source, env)
  const blocks: Block[] = []
  let group: Tokens = []
  let depth = 0
  for (const token of tokens) {
    group.push(token)
    depth += token.nesting
    if (depth) continue
    const [from, to] = group[0].map ?? [0, 0]
    blocks.push({ html: md.renderer.render(group, md.options, env).trimEnd(), from, to })
    group = []
  }
  return blocks
}

function headingOf(tag: string): string {
  return `h${Math.min(6, Number(tag.slice(1)) + HEADING_SHIFT)}`
}

function code(content: string, info: string): string {
  const language = info.trim().split(/\s+/)[0].slice(0, 30)
  const escape = md.utils.escapeHtml
  return `<pre data-language="${escape(language)}"><code>${escape(content)}</code></pre>`
}

interface InlineState { src: string; pos: number; posMax: number; push(type: string, tag: string, nesting: number): any }

/** $x$ and \(x\); \[x\] and $$x$$ within a line. A dollar before a digit behind it is money. */
function inlineMath(state: any, silent: boolean): boolean {
  const { src, pos } = state as InlineState
  const found = mathAt(src, pos)
  if (!found || found.end > state.posMax) return false
  if (!silent) {
    const token = state.push('math', '', 0)
    token.content = found.tex
    token.markup = found.isBlock ? 'block' : ''
  }
  state.pos = found.end
  return true
}

function mathAt(src: string, pos: number): { tex: string; end: number; isBlock: boolean } | undefined {
  const delimited = (open: string, close: string, isBlock: boolean) => {
    if (!src.startsWith(open, pos)) return undefined
    const end = src.indexOf(close, pos + open.length)
    const tex = end < 0 ? '' : src.slice(pos + open.length, end)
    return tex.trim() ? { tex, end: end + close.length, isBlock } : undefined
  }
  if (src[pos] === '\\') return delimited('\\(', '\\)', false) ?? delimited('\\[', '\\]', true)
  if (src[pos] !== '$') return undefined
  if (src[pos + 1] === '$') return delimited('$$', '$$', true)
  const end = src.indexOf('$', pos + 1)
  const tex = end < 0 ? '' : src.slice(pos + 1, end)
  // `$5 and US$ 6`: a number and then a word.
  const isMoney = /^\s|\s$|\\$|\n\n|^\d[\d.,]*\s+\p{L}{2}/u.test(tex) || /[\p{L}\d]/u.test(src[end + 1] ?? '')
  return tex && !isMoney ? { tex, end: end + 1, isBlock: false } : undefined
}

/** A block between lines that begin with $$ or \[, up to the line that ends with $$ or \]. */
function blockMath(state: any, startLine: number, endLine: number, silent: boolean): boolean {
  const lineAt = (line: number): string => state.src.slice(state.bMarks[line] + state.tShift[line], state.eMarks[line])
  const first = lineAt(startLine)
  const close = first.startsWith('$$') ? '$$' : first.startsWith('\\[') ? '\\]' : ''
  if (!close) return false
  const lines: string[] = []
  for (let line = startLine; line < endLine; line += 1) {
    let text = line === startLine ? first.slice(2) : lineAt(line)
    const at = text.indexOf(close)
    if (at >= 0 && text.slice(at + 2).trim()) return false // text behind it: the rule for lines takes it
    if (at >= 0) text = text.slice(0, at)
    lines.push(text)
    if (at < 0) continue
    if (silent) return true
    state.line = line + 1
    const token = state.push('math', '', 0)
    token.content = lines.join('\n').trim()
    token.markup = 'block'
    token.block = true
    token.map = [startLine, line + 1]
    return true
  }
  return false
}
