/**
 * Samples of a microphone as 16-bit samples at another rate. Pure; it runs in the audio thread, so it allocates
 * only what it returns.
 *
 * Each sample is a weighted sum of the samples around its time (a sinc under a Hann window). The filter ends at half
 * of the lower rate: what lies above would come back as other tones.
 */

/** Zero crossings of the sinc on each side. */
const CROSSINGS = 8
/** Positions between two samples for which weights are computed. */
const PHASES = 128

export class Resampler {
  private readonly step: number
  private readonly reach: number
  private readonly weights: Float32Array[] = []
  /** Samples from the one at `first` on. */
  private held: Float32Array
  private count: number
  private first: number
  private made = 0

  constructor(from: number, to: number) {
    this.step = from / to
    const cutoff = Math.min(1, to / from)
    this.reach = Math.ceil(CROSSINGS / cutoff)
    for (let phase = 0; phase < PHASES; phase += 1) this.weights.push(weightsOf(phase / PHASES, this.reach, cutoff))
    this.held = new Float32Array(4_096)
    // Silence stands before the first sample.
    this.first = -this.reach
    this.count = this.reach
  }

  /** Return the samples that these samples complete. */
  take(samples: Float32Array): Int16Array {
    this.hold(samples)
    const end = this.first + this.count - this.reach // the filter of a later sample lacks its right side
    const total = Math.max(this.made, Math.ceil(end / this.step))
    const out = new Int16Array(total - this.made)
    for (let at = 0; at < out.length; at += 1) out[at] = this.sampleAt((this.made + at) * this.step)
    this.made = total
    return out
  }

  /** Return the samples up to the last one that was taken. */
  finish(): Int16Array {
    return this.take(new Float32Array(this.reach))
  }

  private sampleAt(time: number): number {
    let whole = Math.floor(time)
    let phase = Math.round((time - whole) * PHASES)
    if (phase === PHASES) [whole, phase] = [whole + 1, 0]
    const weights = this.weights[phase]
    const begin = whole - this.reach + 1 - this.first
    let sum = 0
    for (let at = 0; at < weights.length; at += 1) sum += weights[at] * (this.held[begin + at] ?? 0)
    return Math.round(Math.max(-1, Math.min(1, sum)) * 32_767)
  }

  private hold(samples: Float32Array): void {
    const needed = Math.floor(this.made * this.step) - this.reach
    const gone = Math.min(this.count, Math.max(0, needed - this.first))
    this.held.copyWithin(0, gone, this.count)
    this.count -= gone
    this.first += gone
    if (this.count + samples.length > this.held.length) {
      const larger = new Float32Array(2 * (this.count + samples.length))
      larger.set(this.held.subarray(0, this.count))
      this.held = larger
    }
    this.held.set(samples, this.count)
    this.count += samples.length
  }
}

/** Weights of the samples from `-reach + 1` to `reach` around a time; together they are 1, so that a level stays. */
function weightsOf(fraction: number, reach: number, cutoff: number): Float32Array {
  const weights = new Float32Array(2 * reach)
  for (let at = 0; at < weights.length; at += 1) {
    const distance = at - reach + 1 - fraction
    const turn = Math.PI * distance * cutoff
    const sinc = turn === 0 ? 1 : Math.sin(turn) / turn
    weights[at] = Math.abs(distance) >= reach ? 0 : sinc * (0.5 + 0.5 * Math.cos((Math.PI * distance) / reach))
  }
  const sum = weights.reduce((all, weight) => all + weight, 0)
  return weights.map((weight) => weight / sum)
}
