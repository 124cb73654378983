/** What is not about a single answer: the state of the connection, problems, and the retention. */

import { byId, setText } from './dom.js'

export class Notices {
  private readonly state = byId('state')
  private readonly box = byId('problem')
  private readonly text = byId('problem-text')
  private readonly kept = byId('kept')

  constructor() {
    byId('problem-close').addEventListener('click', () => this.clear())
    window.addEventListener('offline', () => this.reachable(false))
  }

  /** A problem stays until the user closes it or sends the next prompt. */
  problem(text: string): void {
    setText(this.text, text)
    this.box.hidden = !text
  }

  clear(): void {
    this.problem('')
  }

  reachable(isReachable: boolean): void {
    this.state.dataset.state = isReachable ? 'live' : 'lost'
    setText(this.state.lastElementChild!, isReachable ? 'connected' : 'no connection, trying again')
  }

  /** `count` of `all` answers are only in this browser. */
  archived(count: number, all: number): void {
    this.kept.hidden = count === 0
    const which = count === all ? 'this conversation' : `${count} of the ${all} answers of this conversation`
    setText(this.kept, count ? `The server no longer keeps ${which}: the time of retention is over. The text is kept in this browser only. You can go on from here.` : '')
  }
}
