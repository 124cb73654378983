/** Events in groups, one for each animation frame: a page draws once for many tokens. */

import { ASYNC_ITERATOR } from './environment.js'

/** Without frames (a hidden page, Node.js) a group is given so often, ms. */
const WITHOUT_FRAMES_MS = 50

export async function* perFrame<T>(source: AsyncIterable<T>): AsyncGenerator<T[], void, undefined> {
  const iterator = source[ASYNC_ITERATOR]()
  let group: T[] = []
  let isDone = false
  let failure: { error: unknown } | undefined
  let wake = () => {}
  const pump = (async () => {
    try {
      for (;;) {
        const { value, done } = await iterator.next()
        if (done) break
        group.push(value)
        wake()
      }
    } catch (error) {
      failure = { error }
    }
    isDone = true
    wake()
  })()
  try {
    for (;;) {
      if (!group.length && !isDone) await new Promise<void>((resolve) => { wake = resolve })
      if (!isDone) await frame()
      const full = group
      group = []
      if (full.length) yield full
      else if (isDone) break
    }
    if (failure) throw failure.error
  } finally {
    if (!isDone) void iterator.return?.()
    void pump
  }
}

function frame(): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, WITHOUT_FRAMES_MS)
    ;(globalThis as any).requestAnimationFrame?.(() => { clearTimeout(timer); resolve() })
  })
}
