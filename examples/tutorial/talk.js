// The whole client: a prompt is sent once, and its answer is read to the end, whatever breaks on the way.

const TAILRACE = document.querySelector('meta[name=tailrace]').content
const $ = (id) => document.getElementById(id)
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** Call Tailrace as the signed-in user. The application makes the token; it lives for five minutes. */
async function call(path, options = {}) {
  const answer = await fetch('/token', { method: 'POST' })
  const { token } = await answer.json()
  const headers = { ...options.headers, authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const response = await fetch(TAILRACE + path, { ...options, headers })
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`)
  return response
}

/** Repeat a request until it is answered. The idempotency key makes sure that a prompt starts one answer only. */
async function persist(path, options) {
  for (;;) {
    try {
      return await call(path, options)
    } catch (error) {
      if (/^4/.test(error.message)) throw error // asking again would not help
      $('state').textContent = 'no connection, trying again'
      await pause(500)
    }
  }
}

async function ask(prompt) {
  const accepted = await persist('/v1/generations', {
    method: 'POST', body: JSON.stringify({ prompt }), headers: { 'idempotency-key': crypto.randomUUID() },
  })
  const { id } = await accepted.json()
  let last = '' // the id of the last event that we have
  for (;;) {
    const headers = { accept: 'application/x-ndjson', ...(last && { 'last-event-id': last }) }
    const response = await persist(`/v1/generations/${id}/events`, { headers })
    if (response.status === 204) return // we have the end already
    try {
      for await (const event of lines(response.body)) {
        if (event.id) last = event.id
        if (event.type === 'token') $('answer').append(event.text)
        if (event.type === 'reset') $('answer').textContent = ''
        if (event.type === 'end') return void ($('state').textContent = event.status)
        $('state').textContent = `event ${last}`
      }
    } catch {
      // The connection broke: come back with the last id, to any node.
    }
    await pause(200)
  }
}

/** The lines of a body, as JSON. */
async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    const found = (rest + value).split('\n')
    rest = found.pop()
    for (const line of found) if (line) yield JSON.parse(line)
  }
}

$('sign-in').addEventListener('submit', async (event) => {
  event.preventDefault()
  const body = JSON.stringify(Object.fromEntries(new FormData(event.target)))
  const answer = await fetch('/sign-in', { method: 'POST', body })
  $('state').textContent = answer.ok ? 'signed in' : 'wrong name or password'
  $('ask').hidden = !answer.ok
})
$('ask').addEventListener('submit', (event) => {
  event.preventDefault()
  $('answer').textContent = ''
  void ask(new FormData(event.target).get('prompt')).catch((error) => { $('state').textContent = error.message })
})
