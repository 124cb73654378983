/** The microphone of this machine: asks the user, and gives pieces of sound until it is closed. */

import type { Piece } from './worklet.js'

const WORKLET = '/page/voice-worklet.js'
/** The audio thread may be gone: then its last piece is not waited for, ms. */
const LAST_MS = 1_000
/** Without a device for sound, Firefox never starts its audio thread, and never says so, ms. */
const START_MS = 5_000

export interface MicrophoneHooks {
  piece(piece: Piece): void
  /** The device was unplugged, or the user took the permission back. */
  ended(): void
}

export class Microphone {
  private closing: Promise<void> | undefined

  private constructor(
    private readonly stream: MediaStream, private readonly context: AudioContext, private readonly node: AudioWorkletNode,
  ) {}

  /** Opens the user's question. Throws a DOMException if the user, the browser or the machine refuses. */
  static async open(hooks: MicrophoneHooks): Promise<Microphone> {
    // There is no `mediaDevices` on a page that came over plain http from another machine.
    if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) throw new DOMException('', 'SecurityError')
    const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true }
    const stream = await navigator.mediaDevices.getUserMedia({ audio })
    const context = new AudioContext() // of the device's rate: Firefox connects no other
    try {
      await context.audioWorklet.addModule(WORKLET)
      await started(context)
      const options = { numberOfOutputs: 0, channelCount: 1, channelCountMode: 'explicit' } as const
      const node = new AudioWorkletNode(context, 'tailrace-recorder', options)
      node.port.onmessage = ({ data }) => hooks.piece(data as Piece)
      context.createMediaStreamSource(stream).connect(node)
      for (const track of stream.getTracks()) track.addEventListener('ended', () => hooks.ended())
      return new Microphone(stream, context, node)
    } catch (error) {
      release(stream, context)
      throw error
    }
  }

  /** Give the last piece to the hook, and let the microphone go. May be called again. */
  close(): Promise<void> {
    return (this.closing ??= this.letGo())
  }

  private async letGo(): Promise<void> {
    const { port } = this.node
    const take = port.onmessage
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, LAST_MS)
      port.onmessage = (event) => {
        take?.call(port, event)
        if (!(event.data as Piece).isLast) return
        clearTimeout(timer)
        resolve()
      }
      port.postMessage('stop')
    })
    port.onmessage = null
    release(this.stream, this.context)
  }
}

/** Throws a DOMException if the audio thread does not start. */
async function started(context: AudioContext): Promise<void> {
  let timer = 0
  const late = new Promise<void>((_, reject) => {
    timer = window.setTimeout(() => reject(new DOMException('', 'InvalidStateError')), START_MS)
  })
  await Promise.race([context.resume(), late]).finally(() => clearTimeout(timer))
}

function release(stream: MediaStream, context: AudioContext): void {
  for (const track of stream.getTracks()) track.stop()
  void context.close().catch(() => {})
}
