/** Errors in words for the reader. */

import { TailraceError } from 'tailrace'

/** What the reader can do about an error. */
export function explain(error: unknown): string {
  if (!(error instanceof TailraceError)) return `This page has a defect: ${String(error)}`
  if (error.status === 410) return 'This answer is past its retention: the server no longer keeps it.'
  if (error.status === 404) return `${error.message}. It was deleted, or was never there.`
  if (error.status === 413) return 'This is too long for this server. Shorten it, remove files, or start a new chat.'
  return error.message
}
