/** Rows of a session's listing: their order, and what they change of a turn. Without I/O. */

import type { Entry, Turn } from './turn.js'

/** Less than a second divided by the answers of a page. */
const TIE_S = 1e-5

/** What decides about a turn's place in the conversation. */
export const placeOf = ({ created_at, after, replaces }: Turn): string => `${created_at} ${after} ${replaces}`

/** What a row of a listing may change of what is seen. */
export const sightOf = ({ status, model, endedAt, isArchived, finishReason, error }: Turn): string =>
  JSON.stringify([status, model, endedAt, isArchived, finishReason, error])

/** From old to new. Times are whole seconds: answers of one second get times that keep the order of the listing. */
export function inOrder(newestFirst: Entry[]): Entry[] {
  let second = 0
  let same = 0
  return newestFirst.reverse().map((entry) => {
    same = entry.created_at === second ? same + 1 : 0
    second = entry.created_at
    return { ...entry, created_at: second + same * TIE_S }
  })
}
