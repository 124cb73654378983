/** Pauses that end early when the network is back, or when the page is shown again. */

import type { Clock } from './environment.js'
import { reasonOf } from './errors.js'

export class Waker {
  private sleepers = new Set<() => void>()
  private readonly wake = () => {
    for (const each of [...this.sleepers]) each()
  }
  private readonly shown = () => {
    if ((globalThis as any).document?.visibilityState === 'visible') this.wake()
  }

  constructor(private readonly clock: Clock) {}

  /** End all pauses now. */
  now(): void {
    this.wake()
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const finish = () => {
        this.clock.clearTimeout(timer)
        signal?.removeEventListener('abort', finish)
        this.sleepers.delete(finish)
        if (!this.sleepers.size) this.listen(false)
        if (signal?.aborted) reject(reasonOf(signal))
        else resolve()
      }
      if (!this.sleepers.size) this.listen(true)
      this.sleepers.add(finish)
      const timer = this.clock.setTimeout(finish, ms)
      signal?.addEventListener('abort', finish)
      if (signal?.aborted) finish()
    })
  }

  private listen(isOn: boolean): void {
    const change = isOn ? 'addEventListener' : 'removeEventListener'
    const world = globalThis as any
    world[change]?.('online', this.wake)
    world.document?.[change]?.('visibilitychange', this.shown)
  }
}
