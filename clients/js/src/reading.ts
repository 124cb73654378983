/**
 * What a reader has seen of one generation: the cursor, the text, the end.
 *
 * Without I/O. Invariant: each event is accepted once and in order, whatever connections deliver; only
 * a `reset` with the id `0-0` lets ids fall. The end is an event, or the server's word that the cursor
 * is the end. Silence is never an end.
 */

import { compareIds, START, type EndEvent, type TailraceEvent, type ToolCallEvent, type Usage } from './events.js'

export interface ToolCall { index: number; call_id: string; name: string; arguments: string }

export class Reading {
  cursor: string
  text = ''
  reasoning = ''
  model = ''
  usage: Usage | undefined
  end: EndEvent | undefined
  /** The server said that nothing follows the cursor, and the `end` was seen by an earlier reader. */
  isOver = false
  /** The text is known from its beginning. */
  isWhole: boolean
  private calls = new Map<string, ToolCall>()
  private lastCalls = new Map<number, string>()

  constructor(cursor = START) {
    this.cursor = cursor
    this.isWhole = cursor === START
  }

  get isDone(): boolean {
    return this.isOver || this.end !== undefined
  }

  get toolCalls(): ToolCall[] {
    return [...this.calls.values()]
  }

  /** Returns whether the event is new. A repeated event changes nothing. */
  accept(event: TailraceEvent): boolean {
    if (this.isDone) return false
    if (event.id === START) {
      if (event.type !== 'reset' && event.type !== 'end') return false
    } else if (compareIds(event.id, this.cursor) <= 0) {
      return false
    }
    this.cursor = event.id
    this.fold(event)
    return true
  }

  private fold(event: TailraceEvent): void {
    switch (event.type) {
      case 'start': this.model = event.model; break
      case 'token': this.text += event.text; break
      case 'reasoning': this.reasoning += event.text; break
      case 'tool_call': this.call(event); break
      case 'usage': { const { type, id, ...usage } = event; this.usage = usage; break }
      case 'reset':
        this.text = this.reasoning = ''
        this.calls.clear()
        this.lastCalls.clear()
        this.usage = undefined
        this.isWhole = true
        break
      case 'end':
        this.end = event
        this.usage = event.usage ?? this.usage
    }
  }

  /** The first piece of a call has its id; later pieces have the index of it. */
  private call({ index, call_id, name, arguments: piece }: ToolCallEvent): void {
    const key = call_id || (this.lastCalls.get(index) ?? '')
    const known = this.calls.get(key)
    this.lastCalls.set(index, key)
    if (known) known.arguments += piece
    else this.calls.set(key, { index, call_id: key, name, arguments: piece })
  }
}
