/** Why nothing can be recorded, and what the reader of the page can do about it. */

import { TailraceError } from 'tailrace'
import { explain } from '../talk/explain.js'

const REASONS: Record<string, string> = {
  NotAllowedError: 'The browser does not let this page use the microphone. Allow the microphone for this page (the sign beside the address), then press Record again.',
  SecurityError: 'Browsers give the microphone only to pages over https, or on localhost. Open this page at an address that begins with https://.',
  NotFoundError: 'There is no microphone. Connect one, then press Record again.',
  NotReadableError: 'The microphone does not answer. Another program may be using it: close that program, then press Record again.',
  InvalidStateError: 'The sound of this browser does not start. Connect a loudspeaker or a headset, then press Record again.',
  AbortError: 'The microphone stopped before the recording began. Press Record again.',
}

const REFUSALS: Record<string, string> = {
  gave_up: 'The server cannot be reached, so the rest of the recording is lost.',
  audio_too_long: 'The recording has reached the longest time that the server takes. Its transcript ends there.',
  audio_complete: 'Another page has ended this recording.',
  audio_lost: 'The server has lost a part of the recording. Record again.',
}

const TIMED_OUT = 'The connection was lost for longer than the server waits for sound, so the recording has ended. The transcript so far stays; what was said after the connection was lost is not in it. Press Record to go on.'
/** So soon after the connection is back, a refusal comes of the outage, ms. */
const OUTAGE_MS = 10_000

/** Why a recording has ended, if the outage before did it; nothing: the transcript tells enough. */
export function outageReason(error: unknown, sinceBackMs: number): string | undefined {
  const { code, members } = error as TailraceError
  const isFailed = code === 'generation_ended' && members?.status === 'failed'
  return isFailed && sinceBackMs < OUTAGE_MS ? TIMED_OUT : undefined
}

export function reasonOf(error: unknown): string {
  if (error instanceof DOMException) return REASONS[error.name] ?? `The microphone cannot be used: ${error.message || error.name}.`
  const code = (error as TailraceError)?.code
  return REFUSALS[code] ?? explain(error)
}
