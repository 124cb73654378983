/** Formulas, in a file of its own with KaTeX: loaded when the first formula is shown. */

import katex from 'katex'

const STYLE = '/page/math.css'
let style: Promise<void> | undefined

export async function draw(place: HTMLElement): Promise<void> {
  await (style ??= loadStyle())
  const tex = place.dataset.tex ?? ''
  if (place.dataset.drawn === tex) return
  place.dataset.drawn = tex
  // KaTeX makes elements, not HTML. `trust` is off: a formula makes no links and loads nothing.
  try {
    katex.render(tex, place, {
      displayMode: place.classList.contains('math-block'), throwOnError: true, trust: false, strict: 'ignore',
      maxSize: 20, maxExpand: 200,
    })
  } catch {
    place.textContent = tex // not complete, or not TeX
  }
}

function loadStyle(): Promise<void> {
  return new Promise((resolve) => {
    const link = document.createElement('link')
    link.rel = 'stylesheet'
    link.href = STYLE
    link.onload = link.onerror = () => resolve()
    document.head.append(link)
  })
}
