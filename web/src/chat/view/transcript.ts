/** The turns of the open conversation, in their order, and what a screen reader is told about them. */

import type { Place } from '../talk/arrange.js'
import type { Turn } from '../talk/turn.js'
import { noteOf } from '../talk/turn.js'
import { byId } from './dom.js'
import type { Figures } from './figures.js'
import { paintSoon } from './frames.js'
import type { Notices } from './notices.js'
import { Scroll } from './scroll.js'
import { Stretches } from './stretches.js'
import { TurnView, type TurnActions } from './turn-view.js'

/** Of an answer that a screen reader is told at its end. */
const SPOKEN_CHARACTERS_MAX = 1_500

export class Transcript {
  private readonly stretches = new Stretches(byId('turns'))
  private readonly empty = byId('empty')
  private readonly spoken = byId('spoken')
  private readonly scroll = new Scroll(byId('log'), byId('content'), byId<HTMLButtonElement>('to-newest'))
  private readonly views = new Map<Turn, TurnView>()
  private readonly running = new Set<Turn>()

  constructor(
    private readonly actions: TurnActions, private readonly figures: Figures, private readonly notices: Notices,
  ) {}

  clear(): void {
    for (const view of this.views.values()) view.remove()
    this.views.clear()
    this.running.clear()
    this.scroll.toBottom()
  }

  show(path: { turn: Turn; place: Place }[]): void {
    const wanted = new Set(path.map(({ turn }) => turn))
    for (const [turn, view] of this.views) {
      if (wanted.has(turn)) continue
      view.remove()
      this.views.delete(turn)
    }
    // Only what is new is painted: in a long conversation this runs for a thousand turns.
    const inOrder = path.map(({ turn, place }) => {
      let view = this.views.get(turn)
      if (!view) {
        view = new TurnView(turn, this.actions, (each) => this.figures.line(each))
        this.views.set(turn, view)
        this.changed(turn)
      }
      view.at(place)
      return view
    })
    this.stretches.show(inOrder)
    this.empty.hidden = path.length > 0
    // The empty page has the place of an answer, too.
    if (path.length) document.getElementById('no-answer')?.remove()
    else if (!document.getElementById('no-answer')) this.empty.append(noAnswer())
    this.notices.archived(path.filter(({ turn }) => turn.isArchived).length, path.length)
    this.scroll.follow()
  }

  changed(turn: Turn): void {
    const view = this.views.get(turn)
    if (!view) return
    this.speak(turn)
    paintSoon(view)
  }

  /** All turns, or one. */
  repaint(turn?: Turn): void {
    for (const [each, view] of this.views) if (!turn || each === turn) paintSoon(view)
  }

  toBottom(): void {
    this.scroll.toBottom()
  }

  editLast(): void {
    const view = [...this.views.values()].findLast(({ turn }) => !turn.isActive && !turn.isRecording)
    view?.focus()
    view?.edit()
  }

  /** A live region that reads each token would never stop: it gets the beginning and the end. */
  private speak(turn: Turn): void {
    if (turn.isActive === this.running.has(turn)) return
    if (turn.isActive) {
      this.running.add(turn)
      this.spoken.textContent = 'The answer is being written.'
    } else {
      this.running.delete(turn)
      const { text } = noteOf(turn)
      this.spoken.textContent = `${text || 'The answer is complete.'} ${turn.text.slice(0, SPOKEN_CHARACTERS_MAX)}`
    }
  }
}

function noAnswer(): HTMLElement {
  const place = document.createElement('div')
  place.id = 'no-answer'
  place.dataset.test = 'answer'
  return place
}
