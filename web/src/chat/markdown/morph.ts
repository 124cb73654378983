/**
 * Change the children of one node into those of another, and touch only what differs. A text that has grown is
 * appended to, so a selection in it stays.
 */

export function morph(now: Node, wanted: Node): void {
  let child = now.firstChild
  for (const next of [...wanted.childNodes]) {
    if (!child) {
      now.appendChild(next)
    } else if (isSame(child, next)) {
      const following: ChildNode | null = child.nextSibling
      change(child, next)
      child = following
    } else {
      const old: ChildNode = child
      child = child.nextSibling
      now.replaceChild(next, old)
    }
  }
  while (child) {
    const following: ChildNode | null = child.nextSibling
    child.remove()
    child = following
  }
}

function isSame(now: Node, wanted: Node): boolean {
  if (now.nodeType !== wanted.nodeType || now.nodeName !== wanted.nodeName) return false
  return !(now instanceof Element) || now.className === (wanted as Element).className || isMath(now)
}

function change(now: Node, wanted: Node): void {
  if (now instanceof Text) {
    const { data } = wanted as Text
    if (now.data === data) return
    // Only behind the common beginning: a selection that ends in front of it stays.
    let same = 0
    while (same < now.length && now.data[same] === data[same]) same += 1
    now.replaceData(same, now.length - same, data.slice(same))
    return
  }
  if (!(now instanceof Element) || !(wanted instanceof Element)) return
  // A formula is drawn into its placeholder. The same formula stays as it is.
  if (isMath(now) && now.getAttribute('data-tex') === wanted.getAttribute('data-tex')) return
  for (const { name, value } of [...wanted.attributes]) {
    if (now.getAttribute(name) !== value) now.setAttribute(name, value)
  }
  for (const { name } of [...now.attributes]) {
    if (!wanted.hasAttribute(name) && name !== 'tabindex') now.removeAttribute(name)
  }
  morph(now, wanted)
}

const isMath = (node: Element): boolean => node.classList.contains('math')
