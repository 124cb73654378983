/** The events of a generation, as docs/protocol.md describes them, and the comparison of their ids. */

interface Base {
  /** The event id, `<attempt>-<seq>`: a cursor from which any node continues. */
  id: string
  extra?: Record<string, unknown>
}
export interface StartEvent extends Base {
  type: 'start'; attempt: number; model: string
  /** Which backend of a route writes the answer from here on. */
  backend?: string
}
export interface TokenEvent extends Base { type: 'token'; text: string; agent?: string }
export interface ReasoningEvent extends Base { type: 'reasoning'; text: string; agent?: string }
export interface ExtraEvent extends Base { type: 'extra' }
export interface ToolCallEvent extends Base {
  type: 'tool_call'; index: number; call_id: string; name: string; arguments: string; agent?: string
}
export interface ProgressEvent extends Base {
  type: 'progress'; stage: string; current: number; total: number; percentage: number; agent?: string
}
export interface FileEvent extends Base {
  type: 'file'; name: string; media_type: string; url?: string; data?: string; agent?: string
}
export interface DataEvent extends Base { type: 'data'; name: string; value: unknown; agent?: string }
/** All earlier events are void. The answer starts again after this event. */
export interface ResetEvent extends Base { type: 'reset'; reason: 'restarted' | 'log_rewritten' }
export interface Usage {
  prompt_tokens: number; completion_tokens: number; total_tokens: number
  extra?: Record<string, unknown>
}
export interface UsageEvent extends Base, Usage { type: 'usage'; extra?: Record<string, unknown> }
export type Status = 'completed' | 'cancelled' | 'failed'
export interface EndError { code: string; message: string; retryable: boolean }
export interface EndEvent extends Base {
  type: 'end'; status: Status; finish_reason: string; usage?: Usage; error?: EndError
}
export type TailraceEvent =
  | StartEvent | TokenEvent | ReasoningEvent | ExtraEvent | ToolCallEvent | ProgressEvent
  | FileEvent | DataEvent | ResetEvent | UsageEvent | EndEvent

/** The id of a `reset` or `end` that stands in no log. As a cursor it means "from the start". */
export const START = '0-0'

const EVENT_ID = /^(0|[1-9]\d{0,18})-(0|[1-9]\d{0,18})$/

export const isEventId = (id: unknown): id is string => typeof id === 'string' && EVENT_ID.test(id)

/** Negative, 0 or positive: how two event ids are ordered. The numbers may exceed 2**53. */
export function compareIds(a: string, b: string): number {
  const [left, right] = [a.split('-'), b.split('-')]
  for (const part of [0, 1]) {
    const [x, y] = [left[part], right[part]]
    if (x !== y) return x.length - y.length || (x < y ? -1 : 1)
  }
  return 0
}

const EMPTY: Record<string, Record<string, unknown>> = {
  token: { text: '' },
  reasoning: { text: '' },
  tool_call: { call_id: '', name: '', arguments: '' },
  end: { finish_reason: '' },
}

/** Add the members that a server may leave out; `undefined` if this is not an event. */
export function readEvent(members: Record<string, unknown> | null, id?: unknown): TailraceEvent | undefined {
  if (typeof members !== 'object' || typeof members?.type !== 'string') return undefined
  const known = id ?? members.id
  if (!isEventId(known)) return undefined
  const { type, ...rest } = members
  if (typeof (rest.text ?? '') !== 'string') return undefined
  return { type, ...EMPTY[type], ...rest, id: known } as unknown as TailraceEvent
}
