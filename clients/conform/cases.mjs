// What a resumable event stream has to do, one function a case. README.md says why.
import { check, same } from './reading.mjs'

const RESUMES_MAX = 100
const CUTS = 40
const READERS = 20
const TOGETHER = 10

async function inGroups(items, work) {
  for (let at = 0; at < items.length; at += TOGETHER) await Promise.all(items.slice(at, at + TOGETHER).map(work))
}

/** Numbers spread over 0 to `count` - 1. */
function spread(count, max) {
  const step = Math.max(1, Math.ceil(count / max))
  return Array.from({ length: Math.ceil(count / step) }, (_, at) => at * step)
}

async function resumeEverywhere(target, known, base) {
  const { id, events } = known
  const places = spread(events.length - 1, RESUMES_MAX)
  await inGroups(places, async (at) => {
    const got = await target.read(id, { after: events[at].id, base })
    check(got.status === 200, `a reader that has ${events[at].id} was answered ${got.status}`)
    same(got.events, events.slice(at + 1), `resumed after ${events[at].id}`)
  })
  return `${places.length} places`
}

/** Each case gets the target and what the first reading knows: {id, events, times, took}. */
export const CASES = {
  'the stream is an event stream': async (target, known) => {
    check(known.type.startsWith('text/event-stream'), `content-type is ${known.type}`)
  },
  'every event has an id of its own': async (target, { events }) => {
    check(events.length >= 3, `only ${events.length} events: give --start-body a prompt with a longer answer`)
    const without = events.findIndex((each) => !each.id)
    check(without < 0, `event number ${without + 1} has no id: a reader cannot come back after it`)
    check(new Set(events.map((each) => each.id)).size === events.length, 'two events have the same id')
  },
  'events arrive while the answer is being made': async (target, { times, took }) => {
    check(took > 500, `the answer took ${Math.round(took)} ms: give --start-body a prompt whose answer takes a second or more`)
    check(times[0] < took / 2, 'the first event came in the second half: something holds the stream back')
    const largest = Math.max(...times.map((at) => times.filter((other) => Math.abs(other - at) < 5).length))
    check(largest < times.length / 2, `${largest} of ${times.length} events came at once: something holds the stream back`)
  },
  'a reader that comes after the end gets the same': async (target, { id, events }) => {
    same((await target.whole(id)).events, events, 'read after the end')
  },
  'a reader comes back after any event': (target, known) => resumeEverywhere(target, known),
  'a reader comes back at another node': async (target, known) => {
    if (!target.otherUrl) return null
    return resumeEverywhere(target, known, target.otherUrl)
  },
  'a live answer is cut at any byte, again and again': async (target) => {
    const id = await target.start()
    const found = []
    let cuts = 0
    for (let isEnded = false; !isEnded; ) {
      const after = found.at(-1)?.id
      const base = target.otherUrl && cuts % 2 ? target.otherUrl : target.url
      const got = await target.read(id, { after, base, cutAt: cuts < CUTS ? 200 + ((cuts * 97) % 400) : Infinity })
      if (got.status === 204) break
      check(got.status === 200, `a reader that has ${after} was answered ${got.status}`)
      check(!got.isLate, `no end within ${target.limitS} s`)
      check(got.isEnded || cuts < CUTS, 'the stream closed without its end event')
      found.push(...got.events)
      isEnded = got.isEnded
      cuts += 1
    }
    same(found, (await target.whole(id)).events, 'over all cuts')
    return `${cuts} connections`
  },
  'a reader that leaves does not stop the answer': async (target) => {
    const id = await target.start()
    await target.read(id, { stopAfter: 1 })
    await target.whole(id)
  },
  'many readers get the same': async (target) => {
    const id = await target.start()
    const all = await Promise.all(Array.from({ length: READERS }, () => target.whole(id)))
    for (const each of all) same(each.events, all[0].events, 'one of the readers')
    return `${READERS} readers`
  },
  'a reader that has the end is told to stop': async (target, { id, events }) => {
    const got = await target.read(id, { after: events.at(-1).id, limitS: 5 })
    check(!got.isLate, 'the stream stays open after the end')
    check(got.events.length === 0, `${got.events.length} events came after the end`)
    check(got.status === 204, `the answer is ${got.status}: a browser's EventSource stops at 204 only, and comes back for ever otherwise`)
  },
  'an id that cannot be is refused': async (target, { id }) => {
    for (const after of ['no-such-id', '99999999999999999999-1', '-1']) {
      const got = await target.read(id, { after, limitS: 5 })
      check(got.status >= 400 && got.status < 500, `Last-Event-ID: ${after} was answered ${got.status}: the reader gets a wrong part and never learns of it`)
    }
  },
  'an unknown answer is 404': async (target, { id }) => {
    const unknown = id.replace(/[a-z0-9]/g, (sign) => (sign === 'z' ? 'y' : sign === '9' ? '8' : String.fromCharCode(sign.charCodeAt(0) + 1)))
    const got = await target.read(unknown, { limitS: 5 })
    check(!got.isLate, 'the server holds the connection open')
    check([400, 404, 410].includes(got.status), `the answer is ${got.status}`)
  },
  'a silent stream shows signs of life': async (target) => {
    if (!target.silentBody) return null
    const id = await target.start(target.silentBody)
    const got = await target.read(id, { limitS: target.heartbeatS })
    check(got.isLate, 'the answer of --silent-body is not silent for so long')
    check(got.bytes > 0, `nothing arrived for ${target.heartbeatS} s: a reader cannot tell a silent stream from a dead one`)
  },
}

/** What the command line must have for a case. */
export const NEEDS = {
  'a reader comes back at another node': '--other-url',
  'a silent stream shows signs of life': '--silent-body',
}
