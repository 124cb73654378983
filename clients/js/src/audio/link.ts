/** One connection over which audio leaves: a WebSocket, or one request for each chunk. */

import { TailraceError } from '../errors.js'
import type { Environment } from '../environment.js'
import type { Outgoing } from './outgoing.js'

/** How long to wait before the server is asked again whether it has room, ms. */
const ROOM_MS = 500
const ROOM_MAX_MS = 5_000

export interface Upload {
  env: Environment
  /** Of the generation. */
  id: string
  outgoing: Outgoing
  signal: AbortSignal
  /** The server has answered over this connection. */
  alive(): void
  /** Something was acknowledged, or there is other room. */
  changed(): void
}

export interface Link {
  /** There may be more to send. */
  pump(): void
  /** Resolves when everything is acknowledged, rejects with a TailraceError when the connection ends before. */
  readonly over: Promise<void>
}

/** Refusals of a chunk after which the state of the audio says how to go on. */
export const canResume = (code: string): boolean => code === 'audio_full' || code === 'sequence_gap'

export const roomMs = (retryAfterS?: number): number => Math.min(ROOM_MAX_MS, retryAfterS ? retryAfterS * 1000 : ROOM_MS)

export const errorOf = ({ code, message, retryable, retry_after_s, ...members }: any): TailraceError => {
  const retryAfterS = Number(retry_after_s) || undefined
  return new TailraceError(String(code), String(message), { retryable: retryable === true, retryAfterS, members })
}
