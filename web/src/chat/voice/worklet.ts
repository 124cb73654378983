/**
 * In the audio thread of the browser: the samples of the microphone as pieces of 100 ms, 16-bit at 16 kHz, and how
 * loud each piece is. A script of its own: `audioWorklet.addModule` loads it by its address.
 */

import { Resampler } from './resample.js'

/** What the thread sends. `level`: the highest sample, 0 to 1. */
export interface Piece { pcm: ArrayBuffer; level: number; isLast: boolean }

declare const sampleRate: number
declare function registerProcessor(name: string, processor: unknown): void
declare class AudioWorkletProcessor { readonly port: MessagePort }

const RATE = 16_000
const PIECE_SAMPLES = 1_600

class Recorder extends AudioWorkletProcessor {
  private readonly resampler = new Resampler(sampleRate, RATE)
  private piece = new Int16Array(PIECE_SAMPLES)
  private filled = 0
  private isOver = false

  constructor() {
    super()
    this.port.onmessage = () => {
      if (this.isOver) return
      this.isOver = true
      this.put(this.resampler.finish())
      this.send(true)
    }
  }

  process([channels]: Float32Array[][]): boolean {
    const [samples] = channels
    if (samples && !this.isOver) this.put(this.resampler.take(samples))
    return !this.isOver
  }

  private put(samples: Int16Array): void {
    for (const sample of samples) {
      this.piece[this.filled] = sample
      this.filled += 1
      if (this.filled === PIECE_SAMPLES) this.send(false)
    }
  }

  private send(isLast: boolean): void {
    const view = new DataView(new ArrayBuffer(2 * this.filled))
    let highest = 0
    for (let at = 0; at < this.filled; at += 1) {
      const sample = this.piece[at]
      highest = Math.max(highest, Math.abs(sample))
      view.setInt16(2 * at, sample, true) // little-endian, on each machine
    }
    this.filled = 0
    const piece: Piece = { pcm: view.buffer, level: highest / 32_768, isLast }
    this.port.postMessage(piece, [view.buffer])
  }
}

registerProcessor('tailrace-recorder', Recorder)
