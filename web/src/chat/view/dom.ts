/** Elements without HTML: text becomes text nodes, attributes are set by name. */

type Attributes = Record<string, string | number | boolean | ((event: any) => void)>

/** `on…` members are listeners, `true` is an attribute without a value, `false` is left out. */
export function h<K extends keyof HTMLElementTagNameMap>(
  name: K, attributes: Attributes = {}, ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(key.slice(2), value)
    else if (value !== false) element.setAttribute(key, value === true ? '' : String(value))
  }
  element.append(...children)
  return element
}

/** A button with a picture and a name for screen readers. */
export function iconButton(icon: string, label: string, onclick: () => void): HTMLButtonElement {
  return h('button', { type: 'button', class: `icon icon-${icon}`, 'aria-label': label, title: label, onclick })
}

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T
}

/** Write only what differs: a write makes the browser lay out the page again. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text
}

export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    // Over plain http from another machine there is no clipboard for scripts, except this one.
    const area = h('textarea', { class: 'unseen' })
    area.value = text
    document.body.append(area)
    area.select()
    const isCopied = document.execCommand('copy')
    area.remove()
    return isCopied
  }
}
