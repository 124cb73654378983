/**
 * One turn of painting for each animation frame, whatever arrives between two frames. A hidden page has no
 * frames; it paints a few times a second, so that it is up to date when it is shown.
 */

const HIDDEN_MS = 250

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
  const views = [...waiting]
  waiting.clear()
  for (const view of views) view.paint()
  afterwards()
}
