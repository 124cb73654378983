/** Pictures and other files of an answer or a prompt. Nothing is loaded from another host. */

import type { OutFile, PageFile } from '../talk/turn.js'
import { h } from './dom.js'

export interface FileSource {
  /** The bytes of a path of this node, with the credentials of the page. */
  fetch(path: string): Promise<Response>
  stored(file: PageFile): HTMLElement
}

const PICTURES = /^image\/(png|jpeg|gif|webp|avif|\*)$/i

export function fileView(file: OutFile, source: FileSource): HTMLElement {
  const url = file.data ? `data:${file.media_type};base64,${file.data}` : (file.url ?? '')
  const isPicture = PICTURES.test(file.media_type) || /^data:image\/(png|jpeg|gif|webp|avif)[;,]/i.test(url)
  if (isPicture && /^data:image\/(png|jpeg|gif|webp|avif)[;,]/i.test(url)) return picture(url, file.name)
  if (/^data:/i.test(url)) return saved(file.name, () => fromData(url))
  const path = ownPath(url)
  if (path) {
    const bytes = async () => (await source.fetch(path)).blob()
    return isPicture ? later(file.name, bytes) : saved(file.name, bytes)
  }
  if (!/^https?:/i.test(url)) return h('span', { class: 'file' }, file.name)
  return h('a', { class: 'file', href: url, target: '_blank', rel: 'noopener noreferrer nofollow' }, file.name || url)
}

export function saved(name: string, bytes: () => Promise<Blob>): HTMLElement {
  return h('button', { type: 'button', class: 'file', onclick: () => void bytes().then((blob) => save(name, blob), () => {}) }, name)
}

function picture(url: string, name: string): HTMLElement {
  return h('img', { class: 'picture', src: url, alt: name || 'picture', loading: 'lazy' })
}

function later(name: string, bytes: () => Promise<Blob>): HTMLElement {
  const place = h('img', { class: 'picture', alt: name || 'picture' })
  void bytes().then((blob) => {
    if (PICTURES.test(blob.type)) place.src = URL.createObjectURL(blob)
  }, () => {})
  return place
}

function save(name: string, blob: Blob): void {
  // As bytes: a browser would show HTML or SVG as a page of this origin.
  const url = URL.createObjectURL(new Blob([blob], { type: 'application/octet-stream' }))
  h('a', { href: url, download: name || 'file' }).click()
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}

async function fromData(url: string): Promise<Blob> {
  const at = url.indexOf(',')
  const isBase64 = url.slice(0, at).endsWith(';base64')
  const text = isBase64 ? atob(url.slice(at + 1)) : decodeURIComponent(url.slice(at + 1))
  return new Blob([Uint8Array.from(text, (character) => character.charCodeAt(0))])
}

/** The path of an address at this node; '' for other addresses. */
function ownPath(url: string): string {
  try {
    const found = new URL(url, location.origin)
    return found.origin === location.origin && found.pathname.startsWith('/v1/files/') ? found.pathname : ''
  } catch {
    return ''
  }
}
