// A page with the hooks of `tailrace/react`: one answer, and the answers of a session.
import { createElement as h } from 'react'
import { createRoot } from 'react-dom/client'
import { Tailrace } from '../../clients/js/dist/index.js'
import { useGeneration, useSession } from '../../clients/js/dist/react.js'

const { url, session } = window.options
const client = new Tailrace({ url })

function One() {
  const answer = useGeneration(client)
  window.one = answer
  return h('main', { 'data-status': answer.status }, answer.text)
}

function All() {
  const { items, error } = useSession(client, session)
  window.sessionError = error
  return h('ul', null, items.map(({ id, prompt, text, status }) => h('li', { key: id, 'data-status': status, title: prompt }, text)))
}

createRoot(document.body.appendChild(document.createElement('div'))).render([h(One, { key: 'one' }), h(All, { key: 'all' })])
