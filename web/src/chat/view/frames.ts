/**
 * One turn of painting for each animation frame, whatever arrives between two frames. A hidden page has no
 * frames; it paints a few times a second, so that it is up to date when it is shown.
 */

const HIDDEN_MS = 250
/** Of one frame, for painting. */
const BUDGET_MS = 10

export interface Painted { paint(): void }

const waiting = new Set<Painted>()
let isAsked = false
/** Called after each turn of painting, for what depends on the new heights. */
let afterwards: () => void = () => {}

export function paintSoon(view: Painted): void {
  waiting.add(view)
  if (isAsked) return
  isAsked = true
  if (document.hidden) setTimeout(paint, HIDDEN_MS)
  else {
    // A page that becomes hidden before its frame would wait until it is shown again.
    const timer = setTimeout(paint, HIDDEN_MS)
    requestAnimationFrame(() => {
      clearTimeout(timer)
      paint()
    })
  }
}

export function afterPaint(act: () => void): void {
  afterwards = act
}

function paint(): void {
  if (!isAsked) return
  isAsked = false
  const began = performance.now()
  for (const view of waiting) {
    waiting.delete(view)
    view.paint()
    if (performance.now() - began > BUDGET_MS) break // a reader who scrolls fast: the rest in the next frame
  }
  afterwards()
  const next = waiting.values().next().value
  if (next) paintSoon(next)
}
