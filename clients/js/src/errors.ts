/** The one error of this package. `retryable` says whether the same call may succeed later. */

export interface ErrorFacts {
  retryable: boolean
  /** The HTTP status, when a server has answered. */
  status?: number
  /** Seconds to wait, when the server has named them. */
  retryAfterS?: number
  /** All members of the server's error. */
  members?: Record<string, unknown>
  cause?: unknown
}

/**
 * `code` is a code of docs/protocol.md, or one of this package: `connection` (no answer, or no answer
 * of a Tailrace node), `stalled`, `gave_up`, `aborted`, `no_websocket`, `usage`, `reset`.
 */
export class TailraceError extends Error {
  readonly code: string
  readonly retryable: boolean
  readonly status?: number
  readonly retryAfterS?: number
  readonly members?: Record<string, unknown>

  constructor(code: string, message: string, facts: ErrorFacts) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause })
    this.name = 'TailraceError'
    this.code = code
    this.retryable = facts.retryable
    this.status = facts.status
    this.retryAfterS = facts.retryAfterS
    this.members = facts.members
  }
}

/** A broken connection: the client comes back with its cursor. */
export const broken = (message: string, cause?: unknown): TailraceError =>
  new TailraceError('connection', message, { retryable: true, cause })

export const aborted = (): TailraceError => new TailraceError('aborted', 'aborted', { retryable: true })

/** Why a signal was aborted. The signals of React Native have no reason. */
export const reasonOf = (signal: AbortSignal): unknown => signal.reason ?? aborted()

export const asError = (error: unknown): TailraceError =>
  // Another entry of the package has a class of its own with this name.
  (error as Error)?.name === 'TailraceError' ? (error as TailraceError) : broken(`The connection broke: ${String(error)}`, error)
