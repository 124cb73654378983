/** The section of a recording: its state, the time, the level, and the buttons Stop and Cancel. */

import { byId, h, setText } from '../view/dom.js'

export type VoiceState = 'asking' | 'recording' | 'sending'

const NAMES: Record<VoiceState, string> = {
  asking: 'Waiting for the microphone',
  recording: 'Recording',
  sending: 'Sending the rest of the recording',
}
/** Bars of the wave, 100 ms each. */
const BARS = 45
const BAR_PIXELS = 3
const GAP_PIXELS = 1
const WAVE_HEIGHT = 28

export class VoiceView {
  private readonly name = h('span', { role: 'status', 'data-test': 'voice-state' })
  private readonly time = h('span', { role: 'timer', 'aria-label': 'Recorded time', 'data-test': 'voice-time' }, '0:00')
  private readonly level = h('meter', { min: 0, max: 1, 'aria-label': 'Level of the microphone', 'data-test': 'voice-level' })
  private readonly wave = h('canvas', { 'aria-hidden': true, width: BARS * (BAR_PIXELS + GAP_PIXELS), height: WAVE_HEIGHT })
  private readonly hint = h('p', { class: 'voice-hint', role: 'alert', 'data-test': 'voice-hint' })
  private readonly stop: HTMLButtonElement
  private readonly section: HTMLElement
  private readonly composer = byId('composer')
  private levels: number[] = []

  constructor(actions: { stop(): void; cancel(): void }) {
    const cancel = h('button', { type: 'button', 'data-test': 'voice-cancel', onclick: () => actions.cancel() }, 'Cancel')
    this.stop = h('button', { type: 'button', class: 'main', 'data-test': 'voice-stop', onclick: () => actions.stop() }, 'Stop recording')
    this.section = h('section', { id: 'voice', 'aria-label': 'Recording', 'data-test': 'voice' },
      h('div', { class: 'voice-line' }, h('span', { class: 'voice-dot', 'aria-hidden': true }), this.name, this.time,
        this.wave, this.level, h('span', { class: 'space' }), h('span', { class: 'buttons' }, cancel, this.stop)),
      this.hint)
    this.composer.classList.add('with-voice')
    this.composer.querySelector('.box')!.before(this.section)
    cancel.focus()
    this.show('asking')
  }

  show(state: VoiceState): void {
    const hadFocus = document.activeElement === this.stop
    this.section.dataset.state = state
    setText(this.name, NAMES[state])
    this.stop.disabled = state !== 'recording'
    this.wave.hidden = this.level.hidden = this.time.hidden = state === 'asking'
    if (state === 'recording') this.stop.focus()
    else if (hadFocus) (this.stop.previousElementSibling as HTMLElement).focus()
  }

  /** What is unusual: no connection, a microphone without sound. */
  say(text: string): void {
    setText(this.hint, text)
  }

  /** Another piece of 100 ms. */
  heard(level: number, seconds: number): void {
    this.levels = [...this.levels, level].slice(-BARS)
    this.level.value = level
    setText(this.time, `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, '0')}`)
    this.draw()
  }

  remove(): void {
    this.section.remove()
    this.composer.classList.remove('with-voice')
  }

  private draw(): void {
    const context = this.wave.getContext('2d')
    if (!context) return
    context.clearRect(0, 0, this.wave.width, WAVE_HEIGHT)
    context.fillStyle = getComputedStyle(this.wave).color
    this.levels.forEach((level, at) => {
      // A voice has low levels: the root makes them visible.
      const height = Math.max(2, Math.sqrt(level) * WAVE_HEIGHT)
      const left = (BARS - this.levels.length + at) * (BAR_PIXELS + GAP_PIXELS)
      context.fillRect(left, (WAVE_HEIGHT - height) / 2, BAR_PIXELS, height)
    })
  }
}
