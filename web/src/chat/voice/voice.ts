/**
 * One recording, from the click to the last byte at the server: the microphone, the generation that takes its audio,
 * and the section on the screen. Loaded with the first recording. The transcript is an answer of the conversation,
 * which reads it as any other.
 */

import { TailraceError } from 'tailrace'
import { TailraceAudio, type Recording } from 'tailrace-source/audio.js'
import type { PageClient } from '../client.js'
import type { PageNote } from '../talk/turn.js'
import { Microphone } from './microphone.js'
import { outageReason, reasonOf } from './reasons.js'
import { VoiceView } from './view.js'
import type { Piece } from './worklet.js'

/** Bytes of a second: 16,000 samples of two bytes. */
const SECOND_BYTES = 32_000
/** About four minutes: so much is kept while there is no connection. */
const BUFFER_BYTES_MAX = 8_388_608
const SILENT_LEVEL = 0.003
const SILENT_S = 5
/** Ends that the transcript shows by itself. */
const EXPLAINED = ['generation_ended', 'aborted']

export interface VoiceHost {
  client: PageClient
  model: string
  session: string
  /** For the metadata of the generation. */
  page: PageNote
  /** The generation is there: show its transcript. `held` is called when another page may end the recording. */
  started(id: string): void
  problem(text: string): void
}

export class Voice {
  private readonly view = new VoiceView({ stop: () => this.stop(), cancel: () => this.cancel() })
  private microphone: Microphone | undefined
  private audio: TailraceAudio | undefined
  private recording: Recording | undefined
  private early: Uint8Array[] = []
  private heardBytes = 0
  private silentBytes = 0
  private isFull = false
  private isCancelled = false
  private stopped: Promise<void> | undefined
  private isLost = false
  /** When the connection came back, ms. */
  private backAt = -Infinity
  private readonly leaving = new AbortController()

  constructor(private readonly host: VoiceHost) {}

  /** Record until the user stops. Returns when the server has everything, or nothing more will be sent. */
  async run(): Promise<void> {
    const { signal } = this.leaving
    document.addEventListener('keydown', this.pressed, true)
    window.addEventListener('pagehide', () => void this.microphone?.close(), { signal })
    try {
      this.microphone = await Microphone.open({ piece: (piece) => this.take(piece), ended: () => this.stop() })
      if (this.isCancelled) return
      this.view.show('recording')
      this.recording = await this.begin()
      this.host.started(this.recording.id)
      for (const bytes of this.early.splice(0)) this.send(bytes)
      if (this.stopped) {
        await this.stopped // which gives the last piece
        await this.recording.finish()
      }
      await this.recording.done
    } catch (error) {
      const code = (error as TailraceError).code
      // What was accepted is transcribed to its end.
      if (code === 'audio_too_long' && this.recording) this.audio?.open(this.recording.id).finish().catch(() => {})
      const isExplained = this.isCancelled || EXPLAINED.includes(code)
      const outage = outageReason(error, performance.now() - this.backAt)
      if (outage && !this.isCancelled) this.host.problem(outage)
      else if (!isExplained) this.host.problem(reasonOf(error))
    } finally {
      this.leaving.abort()
      document.removeEventListener('keydown', this.pressed, true)
      this.view.remove()
      await this.microphone?.close()
    }
  }

  private begin(): Promise<Recording> {
    const { client, model, session, page } = this.host
    const audio = this.audio = client.audio(TailraceAudio, {
      bufferBytesMax: BUFFER_BYTES_MAX,
      onConnection: (state) => {
        if (this.isLost && state === 'live') this.backAt = performance.now()
        this.isLost = state === 'lost'
        this.hint()
      },
    })
    const { signal } = this.leaving
    return client.signedIn(() => audio.start({ model, session, metadata: { page }, idempotencyKey: page.key, signal }))
  }

  private take({ pcm, level }: Piece): void {
    const bytes = new Uint8Array(pcm)
    this.heardBytes += bytes.length
    this.silentBytes = level < SILENT_LEVEL ? this.silentBytes + bytes.length : 0
    this.view.heard(level, this.heardBytes / SECOND_BYTES)
    this.send(bytes)
    this.hint()
  }

  private send(bytes: Uint8Array): void {
    if (!this.recording) {
      this.early.push(bytes)
      if (this.heardBytes > BUFFER_BYTES_MAX) this.full()
      return
    }
    if (this.recording.stoppedBy || this.isFull) return
    if (!this.recording.offer(bytes)) this.full()
  }

  /** What is kept has reached its limit: what is recorded from here on would be lost. */
  private full(): void {
    this.isFull = true
    this.host.problem('The server could not take more of the recording, so recording has stopped. What was recorded until then is sent if the server is back before it stops waiting for sound.')
    this.stop()
  }

  /** End the recording. The rest of it is sent. */
  private stop(): void {
    this.stopped ??= this.letGo()
  }

  private async letGo(): Promise<void> {
    this.view.show('sending')
    await this.microphone?.close()
    this.recording?.finish().catch(() => {}) // `run` waits for `done`, which tells the same
  }

  /** End the generation; its transcript so far stays. */
  private cancel(): void {
    if (this.isCancelled) return
    this.isCancelled = true
    const { recording } = this
    if (recording) void recording.cancel().catch((error) => this.host.problem(reasonOf(error)))
    this.leaving.abort()
    this.view.remove()
  }

  private readonly pressed = (event: KeyboardEvent): void => {
    if (event.key !== 'Escape' || document.querySelector('dialog[open]')) return
    event.stopPropagation()
    this.cancel()
  }

  private hint(): void {
    const isSilent = this.silentBytes > SILENT_S * SECOND_BYTES && !this.stopped
    if (this.isLost) this.view.say('No connection. The recording is kept, and sent if the server is back soon.')
    else this.view.say(isSilent ? 'The microphone gives no sound. Is it switched off?' : '')
  }
}
