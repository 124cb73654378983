// A clock for tests without waiting.

/** A clock whose timers run when the test moves it. */
export class Clock {
  at = 0
  timers = new Map()
  last = 0
  now = () => this.at
  setTimeout = (callback, ms) => {
    this.timers.set((this.last += 1), { callback, due: this.at + ms })
    return this.last
  }
  clearTimeout = (timer) => this.timers.delete(timer)
  async move(ms) {
    const end = this.at + ms
    for (;;) {
      await settle()
      const next = [...this.timers].filter(([, { due }]) => due <= end).sort((a, b) => a[1].due - b[1].due)[0]
      if (!next) break
      this.timers.delete(next[0])
      this.at = Math.max(this.at, next[1].due)
      next[1].callback()
    }
    this.at = end
    await settle()
  }
}
/** Let all callbacks that are due run. */
export const settle = () => new Promise((resolve) => setImmediate(resolve))
