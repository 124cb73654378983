/**
 * Counts what arrived of one answer, from the event ids alone. It trusts neither the client nor the server: the
 * client drops repeated events, and they are counted here before.
 *
 * An id is `attempt-seq`, and seq counts without a hole over all attempts. One `token` may stand for several of the
 * same attempt, under the id of the last one; whether it does is seen in the text, which is compared at the end.
 */

export interface Seen { id: string; type: string; text: string }

export class Counts {
  received = 0
  lost = 0
  repeated = 0
  disordered = 0
  attempt = 0
  text = ''
  /** When each event arrived, ms; for the pauses. */
  readonly arrivals: number[] = []
  private seq = 0
  private missing = new Set<number>()

  /** The page shows this part already; the next event comes after `cursor`. */
  adopt(cursor: string, text: string): void {
    const [attempt, seq] = parse(cursor) ?? [0, 0]
    this.attempt = attempt
    this.seq = seq
    this.text = text
    this.missing.clear()
  }

  note({ id, type, text }: Seen, nowMs: number): void {
    this.received += 1
    this.arrivals.push(nowMs)
    if (id === '0-0') {
      if (type === 'reset') this.adopt('', '') // Redis lost a part: everything begins again
      return
    }
    const read = parse(id)
    if (!read) {
      this.disordered += 1
      return
    }
    const [attempt, seq] = read
    if (seq <= this.seq) {
      if (!this.missing.delete(seq)) this.repeated += 1
      else {
        this.lost -= 1
        this.disordered += 1
      }
      return
    }
    if (attempt < this.attempt) this.disordered += 1
    const isJoined = type === 'token' && attempt === this.attempt
    for (let each = this.seq + 1; each < seq && !isJoined; each += 1) this.missing.add(each)
    if (!isJoined) this.lost += seq - this.seq - 1
    this.attempt = Math.max(this.attempt, attempt)
    this.seq = seq
    if (type === 'token') this.text += text
    if (type === 'reset') this.text = ''
  }

  /** The longest time without an event, ms. */
  get longestWait(): number {
    let longest = 0
    for (let at = 1; at < this.arrivals.length; at += 1) {
      longest = Math.max(longest, this.arrivals[at] - this.arrivals[at - 1])
    }
    return longest
  }
}

function parse(id: string): [number, number] | null {
  const found = /^(\d+)-(\d+)$/.exec(id)
  return found && [Number(found[1]), Number(found[2])]
}
