/** The only way of HTML into the page: DOMPurify with a short list of tags, and links that leave nothing behind. */

import DOMPurify from 'dompurify'

const TAGS = [
  'a', 'blockquote', 'br', 'code', 'del', 'em', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr', 'img', 'li', 'ol', 'p',
  'pre', 's', 'span', 'strong', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul',
]
const ATTRIBUTES = ['alt', 'class', 'data-language', 'data-tex', 'href', 'src', 'start', 'title']
const ADDRESS = /^(?:https?:|mailto:|data:image\/(?:png|jpeg|gif|webp);base64,)/i

DOMPurify.addHook('afterSanitizeAttributes', (element) => {
  if (element.tagName === 'A') {
    const address = element.getAttribute('href') ?? ''
    if (!/^(?:https?:|mailto:)/i.test(address)) element.removeAttribute('href')
    element.setAttribute('target', '_blank')
    element.setAttribute('rel', 'noopener noreferrer nofollow')
  }
  if (element.tagName === 'IMG' && !/^data:image\//i.test(element.getAttribute('src') ?? '')) element.remove()
})

export function sanitise(html: string): DocumentFragment {
  return DOMPurify.sanitize(html, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: ADDRESS,
    ADD_URI_SAFE_ATTR: ['data-language', 'data-tex', 'start'], // no addresses: any value is harmless
    RETURN_DOM_FRAGMENT: true,
  })
}
