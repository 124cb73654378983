#!/usr/bin/env node
// Holds a server to cases.mjs. Exit code 0: every case holds; 1: one does not; 2: the command is wrong.
import { parseArgs } from 'node:util'
import { CASES, NEEDS } from './cases.mjs'
import { Failure, Target } from './reading.mjs'

const HELP = `tailrace-conform: does your server lose or repeat events when a reader comes back?

  npx tailrace-conform --url http://127.0.0.1:8000

  --url URL           the server
  --other-url URL     another node of the server; readers come back there, too
  --start-path PATH   POST here starts an answer           (/v1/generations)
  --start-body JSON   with this body; the answer should take a second or more
  --id-member NAME    the member with the id of the answer (id; a.b for an inner one)
  --events-path PATH  its events                           (/v1/generations/{id}/events)
  --end-event NAME    the event that ends an answer        (end)
  --end-data TEXT     or the data that ends an answer      for example [DONE]
  --silent-body JSON  starts an answer that is silent at first, for the case of the heartbeat
  --heartbeat-s SECONDS  something arrives at least so often (20)
  --header 'a: b'     of every request; may be repeated
  --case WORDS        only the cases with these words
  --limit-s SECONDS   the longest wait for an answer       (30)
  --json              one JSON object a line
`
const BODY = JSON.stringify({ prompt: 'Tell me about logs.', params: { demo: { tokens: 60, tokens_per_s: 40 } } })

function read() {
  const text = (fallback) => ({ type: 'string', default: fallback })
  try {
    const { values } = parseArgs({
      options: {
        url: { type: 'string' }, 'other-url': { type: 'string' }, 'start-path': text('/v1/generations'),
        'start-body': text(BODY), 'id-member': text('id'), 'events-path': text('/v1/generations/{id}/events'),
        'end-event': text('end'), 'end-data': { type: 'string' }, header: { type: 'string', multiple: true },
        case: text(''), 'silent-body': { type: 'string' }, 'heartbeat-s': text('20'), 'limit-s': text('30'), json: { type: 'boolean', default: false }, help: { type: 'boolean' },
      },
    })
    if (values.help) return undefined
    if (!values.url) throw new Error('--url is missing')
    if (!values['events-path'].includes('{id}')) throw new Error('--events-path must contain {id}')
    for (const name of ['limit-s', 'heartbeat-s']) {
      if (!(Number(values[name]) > 0)) throw new Error(`--${name} must be a number of seconds`)
    }
    JSON.parse(values['start-body'])
    return values
  } catch (error) {
    process.stderr.write(`${error.message}\n\n${HELP}`)
    process.exit(2)
  }
}

const values = read()
if (!values) {
  process.stdout.write(HELP)
  process.exit(0)
}
const bare = (url) => url?.replace(/\/+$/, '')
const target = new Target({
  url: bare(values.url), otherUrl: bare(values['other-url']), startPath: values['start-path'], startBody: values['start-body'],
  idMember: values['id-member'], eventsPath: values['events-path'], endEvent: values['end-event'], endData: values['end-data'],
  header: values.header, limitS: Number(values['limit-s']),
  silentBody: values['silent-body'], heartbeatS: Number(values['heartbeat-s']),
})

let failed = 0
let passed = 0
function tell(name, result, detail) {
  failed += result === 'fails'
  passed += result === 'holds'
  const line = values.json ? JSON.stringify({ case: name, result, detail }) : `${result.padEnd(7)} ${name}${detail ? `: ${detail}` : ''}`
  process.stdout.write(`${line}\n`)
}

let known
try {
  const id = await target.start()
  const got = await target.whole(id)
  known = { ...got, id, took: got.times.at(-1) ?? 0 }
} catch (error) {
  if (!(error instanceof Failure)) throw error
  tell('an answer is started and read to its end', 'fails', error.message)
  process.exit(1)
}
tell('an answer is started and read to its end', 'holds', `${known.events.length} events`)
for (const [name, work] of Object.entries(CASES)) {
  if (!name.includes(values.case)) continue
  try {
    const detail = await work(target, known)
    if (detail === null) tell(name, 'skipped', `give ${NEEDS[name]}`)
    else tell(name, 'holds', detail)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    tell(name, 'fails', error.message)
  }
}
if (!values.json) process.stdout.write(`${passed} passed, ${failed} failed\n`)
process.exit(failed ? 1 : 0)
