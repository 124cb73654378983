// Samples of a microphone at another rate: the tones that a voice has stay, and others do not come back.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Resampler } from '../src/chat/voice/resample.js'

const SECONDS = 0.5

const tone = (hz: number, rate: number): Float32Array =>
  Float32Array.from({ length: rate * SECONDS }, (_, at) => 0.5 * Math.sin((2 * Math.PI * hz * at) / rate))

/** In blocks, as the audio thread gives them. */
function resampled(samples: Float32Array, rate: number, block = 128): number[] {
  const resampler = new Resampler(rate, 16_000)
  const out: number[] = []
  for (let at = 0; at < samples.length; at += block) out.push(...resampler.take(samples.subarray(at, at + block)))
  return [...out, ...resampler.finish()]
}

const strength = (samples: number[]): number => {
  const middle = samples.slice(400, -400) // the ends are cut off from their neighbours
  return Math.sqrt(middle.reduce((sum, each) => sum + each * each, 0) / middle.length) / 32_767
}

for (const rate of [48_000, 44_100, 16_000, 8_000]) {
  test(`a tone of 440 Hz at ${rate} Hz stays as it was, sample by sample`, () => {
    const out = resampled(tone(440, rate), rate)
    const wanted = tone(440, 16_000)
    assert.equal(out.length, 16_000 * SECONDS)
    const worst = Math.max(...out.slice(400, -400).map((each, at) => Math.abs(each / 32_767 - wanted[at + 400])))
    assert.ok(worst < 0.01, `differs by ${worst}`)
  })
}

test('a tone above the half of the new rate does not come back as another one', () => {
  assert.ok(strength(resampled(tone(12_000, 48_000), 48_000)) < 0.002)
  assert.ok(strength(resampled(tone(3_000, 48_000), 48_000)) > 0.34)
})

test('the length of the blocks changes nothing', () => {
  const samples = tone(700, 44_100)
  assert.deepEqual(resampled(samples, 44_100, 128), resampled(samples, 44_100, 5_000))
})

test('what is louder than loud is cut off, not wrapped round', () => {
  const out = resampled(new Float32Array(4_800).fill(1.7), 48_000)
  assert.equal(Math.max(...out), 32_767)
  assert.ok(Math.min(...out) > -20_000)
})
