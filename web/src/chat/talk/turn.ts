/** One prompt and its answer, as events and snapshots tell it. Without I/O and without DOM. */

import type { TailraceEvent, ToolCall, Usage } from 'tailrace'
import type { Link } from './arrange.js'

export interface PageFile { id: string; name: string; type: string; bytes: number }
/** What this page puts into the metadata of a generation, below `page`. */
export interface PageNote {
  key?: string
  after?: string
  replaces?: string
  title?: string
  files?: PageFile[]
  /** The prompt is a recording, and the answer is its transcript. */
  recording?: boolean
}
/** A row of a listing, or a snapshot. */
export interface Entry {
  id: string
  status: string
  model: string
  prompt: string
  session: string | null
  created_at: number
  ended_at?: number | null
  finish_reason?: string | null
  metadata: Record<string, unknown>
  error: TurnError | null
}
export interface Snapshot extends Entry {
  text: string
  reasoning: string
  tool_calls: ToolCall[]
  usage: Usage | null
  extra?: Extra | null
  last_event_id: string
  messages: Message[]
}
export interface Message { role: string; content: unknown; [member: string]: unknown }
export interface TurnError { code: string; message: string; retryable?: boolean }
export interface OutFile { name: string; media_type: string; url?: string; data?: string }
export interface Progress { agent: string; stage: string; percentage: number }
export interface Datum { name: string; value: unknown }
/** The most names of data that are shown. */
const DATA_MAX = 50
type Extra = { delta?: { images?: { image_url?: { url?: string } }[]; reasoning_details?: unknown[] } }

const RUNNING = ['unsent', 'queued', 'running']

export class Turn implements Link {
  id: string
  status: string
  prompt: string
  model = ''
  text = ''
  reasoning = ''
  calls: ToolCall[] = []
  files: OutFile[] = []
  /** The stages under way: one for each agent that writes the answer. */
  progress: Progress[] = []
  /** The last value of each name. */
  data: Datum[] = []
  usage: Usage | undefined
  error: TurnError | null = null
  finishReason = ''
  /** Why the answer could not be read or sent; it stays until the reader acts. */
  problem = ''
  cursor = ''
  attempt = 0
  resets = 0
  created_at: number
  endedAt = 0
  metadata: Record<string, unknown> = {}
  /** Parts of the prompt that are not text, for the next prompts of the conversation. */
  content: unknown
  /** The prompt has waited for so long that its reader should know. */
  isLate = false
  /** The text and all else has been read. */
  isLoaded = false
  /** Only this browser still has it. */
  isArchived = false
  /** Milliseconds of this page's clock; 0: unknown. */
  sentAt = 0
  firstTokenAt = 0
  lastEventAt = 0
  /** Seconds from the prompt to the end, for the one who asked; 0: unknown. */
  tookS = 0
  reasonedFrom = 0
  reasonedTo = 0
  private extras: unknown[] = []

  constructor({ id, prompt, status = 'queued', created_at }: { id: string; prompt: string; status?: string; created_at: number }) {
    this.id = id
    this.prompt = prompt
    this.status = status
    this.created_at = created_at
  }

  get note(): PageNote {
    const page = this.metadata.page
    return page && typeof page === 'object' ? (page as PageNote) : {}
  }
  get after(): string { return String(this.note.after ?? '') }
  get replaces(): string { return String(this.note.replaces ?? '') }
  get isRecording(): boolean { return this.note.recording === true }
  get isActive(): boolean { return RUNNING.includes(this.status) && !this.problem }
  get details(): unknown[] { return this.extras }

  /** What a browser keeps beside the text, so that nothing has to be read again. */
  get rest(): Record<string, unknown> {
    const { reasoning, calls, files, data, usage, error, finishReason, cursor, attempt, resets, endedAt, content, extras } = this
    const { reasonedFrom, reasonedTo, tookS } = this
    return { reasoning, calls, files, data, usage, error, finishReason, cursor, attempt, resets, endedAt, content, extras, reasonedFrom, reasonedTo, tookS }
  }

  /** A row of the session's listing. The text comes with `adopt`. */
  list(entry: Entry): void {
    // A listing that was asked for before the end may arrive after it.
    if (!this.isLoaded || (!this.isActive && !RUNNING.includes(entry.status))) this.status = entry.status
    this.prompt ||= entry.prompt
    this.model = entry.model || this.model
    this.created_at = entry.created_at
    this.endedAt = entry.ended_at ?? this.endedAt
    this.metadata = entry.metadata ?? {}
    this.error = entry.error ?? null
    this.finishReason = entry.finish_reason ?? ''
  }

  adopt(now: Snapshot): void {
    this.list({ ...now, created_at: this.created_at }) // the listing has the order within a second
    this.status = now.status
    const last = now.messages?.findLast(({ role }) => role === 'user')
    this.content = last?.content
    this.prompt = textOf(last?.content) || now.prompt || this.prompt
    this.text = now.text ?? ''
    this.reasoning = now.reasoning ?? ''
    this.calls = now.tool_calls ?? []
    this.usage = now.usage ?? undefined
    this.files = []
    this.data = []
    this.progress = []
    this.extras = []
    this.extra(now.extra)
    this.cursor = now.last_event_id === '0-0' ? '' : now.last_event_id
    this.attempt = Number(this.cursor.split('-')[0]) || 0
    this.problem = ''
    this.isLoaded = true
    this.isArchived = false
  }

  take(event: TailraceEvent, now: number): void {
    this.cursor = event.id === '0-0' ? '' : event.id
    this.lastEventAt = now
    if (event.type !== 'end' && event.type !== 'upstream' as never) this.status = 'running'
    if (event.type !== 'reset') this.extra(event.extra as Extra)
    switch (event.type) {
      case 'start':
        this.attempt = event.attempt
        this.model = event.model || this.model
        break
      case 'token':
        if (this.reasonedFrom && !this.text) this.reasonedTo = now // the thoughts end where the answer begins
        this.text += event.text
        this.firstTokenAt ||= now
        this.beside(event)
        break
      case 'reasoning':
        this.reasoning += event.text
        this.firstTokenAt ||= now
        this.reasonedFrom ||= now
        this.reasonedTo = now
        break
      case 'tool_call': this.call(event); break
      case 'progress': case 'data': case 'file': this.beside(event); break
      case 'usage': this.usage = event; break
      case 'reset':
        this.text = this.reasoning = ''
        this.calls = []
        this.extras = []
        this.beside(event)
        this.usage = undefined
        this.reasonedFrom = this.reasonedTo = 0
        this.resets += 1
        break
      case 'end':
        this.status = event.status
        this.finishReason = event.finish_reason
        this.error = event.error ?? null
        this.usage = event.usage ?? this.usage
        this.beside(event)
        // By one clock: that of the server may differ from this machine's.
        if (this.sentAt) this.tookS = (now - this.sentAt) / 1000
    }
  }

  /** What a snapshot does not have: progress, data and files. Also for events that a snapshot includes. */
  beside(event: TailraceEvent): void {
    const agent = String((event as { agent?: string }).agent ?? '') // several programs may write one answer
    const others = this.progress.length ? this.progress.filter((each) => each.agent !== agent) : this.progress
    switch (event.type) {
      case 'token': this.progress = others; break
      case 'progress': this.progress = [...others, { agent, stage: event.stage, percentage: event.percentage }]; break
      case 'file': this.files.push(event); break
      case 'data': {
        const { name, value } = event
        this.data = [...this.data.filter((each) => each.name !== name), { name, value }].slice(-DATA_MAX)
        break
      }
      case 'reset': this.files = []; this.data = []; this.progress = []; break
      case 'end': this.progress = []
    }
  }

  private call(piece: { index: number; call_id: string; name: string; arguments: string }): void {
    const known = piece.call_id
      ? this.calls.find(({ call_id }) => call_id === piece.call_id)
      : this.calls.findLast(({ index }) => index === piece.index)
    if (known) known.arguments += piece.arguments
    else this.calls.push({ index: piece.index, call_id: piece.call_id, name: piece.name, arguments: piece.arguments })
  }

  /** Pictures and signed thoughts have no event of their own. */
  private extra(extra: Extra | null | undefined): void {
    for (const image of extra?.delta?.images ?? []) {
      const url = image?.image_url?.url
      if (typeof url === 'string') this.files.push({ name: 'picture', media_type: 'image/*', url })
    }
    this.extras.push(...(extra?.delta?.reasoning_details ?? []))
  }
}

export function textOf(content: unknown): string {
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) return ''
  // The page adds the text of a file as a part of its own, behind the prompt.
  return content.filter((part) => typeof part?.text === 'string' && !part.text.startsWith(FILE_MARK)).map((part) => part.text).join('\n')
}

/** The beginning of a part that holds the text of an attached file. */
export const FILE_MARK = 'Attached file '

/** The pictures of a prompt, as addresses. */
export function picturesOf(content: unknown): string[] {
  if (!Array.isArray(content)) return []
  return content.map((part) => part?.image_url?.url).filter((url) => typeof url === 'string')
}

/** What the end of an answer means, for its reader. */
export function noteOf(turn: Turn): { text: string; isProblem: boolean } {
  if (turn.problem) return { text: turn.problem, isProblem: true }
  if (turn.status === 'failed') {
    const { message = 'The answer failed.', code = '' } = turn.error ?? {}
    return { text: code ? `${message} (${code})` : message, isProblem: true }
  }
  if (turn.status === 'cancelled') return { text: turn.error?.code === 'deleted' ? 'Deleted.' : 'Stopped.', isProblem: false }
  if (turn.finishReason === 'length') return { text: 'The answer ends here, because it reached the length limit of the model.', isProblem: false }
  if (turn.finishReason === 'content_filter') return { text: 'The model server cut this answer off (content filter).', isProblem: false }
  if (turn.status === 'unsent') return { text: turn.isLate ? 'Not sent yet. This page sends the prompt as soon as the server can be reached.' : '', isProblem: false }
  if (turn.status === 'queued') return { text: 'Waiting for a worker.', isProblem: false }
  return { text: '', isProblem: false }
}
