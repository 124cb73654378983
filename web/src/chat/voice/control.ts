/**
 * The button Record, which is shown where a model of the server takes audio. All else of a recording is loaded with
 * the first click. A recording that a reload has broken off is ended properly by the next page of the tab.
 */

import type { PageClient } from '../client.js'
import { ofTab } from '../store/memory.js'
import { byId } from '../view/dom.js'
import type { VoiceHost } from './voice.js'

/** The generation of a recording under way: the tab's, until the server has its last byte. */
const UNDER_WAY = 'tailrace.recording'
/** A page that was reloaded lets its lock go after a moment; another tab keeps it. */
const LOCK_MS = 5_000

export interface ListedModel { id: string; audio?: boolean }

export interface ControlHooks {
  /** The conversation that takes the recording. */
  place(): Pick<VoiceHost, 'session' | 'page'>
  started(session: string, id: string, page: VoiceHost['page']): void
  problem(text: string): void
  focus(): void
}

export class VoiceControl {
  private readonly button = byId<HTMLButtonElement>('record')
  private models: string[] = []
  private isRecording = false

  constructor(private readonly client: PageClient, private readonly hooks: ControlHooks) {
    this.button.addEventListener('click', () => void this.record())
    if (ofTab.get(UNDER_WAY)) void this.finish(ofTab.get(UNDER_WAY))
  }

  /** What the server has; the button is shown if a model takes audio. */
  listed(models: ListedModel[]): void {
    this.models = models.filter(({ audio }) => audio).map(({ id }) => id)
    this.button.hidden = !this.models.length
  }

  /** An answer is being written. */
  running(isRunning: boolean): void {
    this.button.disabled = isRunning
  }

  private async record(): Promise<void> {
    if (this.isRecording) return
    this.isRecording = true
    this.hooks.problem('')
    const chosen = byId<HTMLSelectElement>('model').value
    const { session, page } = this.hooks.place()
    let release = () => {}
    try {
      const { Voice } = await import('./voice.js')
      await new Voice({
        client: this.client, session, page,
        model: this.models.includes(chosen) ? chosen : this.models[0],
        started: (id) => {
          ofTab.set(UNDER_WAY, id)
          release = hold(id)
          this.hooks.started(session, id, page)
        },
        problem: (text) => this.hooks.problem(text),
      }).run()
    } catch {
      this.hooks.problem('The part of this page that records could not be loaded. Check the connection, then press Record again.')
    } finally {
      ofTab.set(UNDER_WAY, '')
      release()
      this.isRecording = false
      this.hooks.focus()
    }
  }

  /** The page was reloaded while it recorded. The server has what had been sent, and learns that no more will come. */
  private async finish(id: string): Promise<void> {
    ofTab.set(UNDER_WAY, '')
    // A tab that was duplicated has the same storage, and its original goes on recording.
    await navigator.locks?.request(lockOf(id), { signal: AbortSignal.timeout(LOCK_MS) }, async () => {
      const { TailraceAudio } = await import('tailrace-source/audio.js')
      await this.client.audio(TailraceAudio).open(id).finish()
    }).catch(() => {}) // it has ended meanwhile, or another tab has it
  }
}

const lockOf = (id: string): string => `tailrace.recording.${id}`

/** Tell other pages that this one records. Returns what lets the lock go. */
function hold(id: string): () => void {
  let release = () => {}
  void navigator.locks?.request(lockOf(id), () => new Promise<void>((resolve) => { release = resolve }))
  return () => release()
}
