/** The operators' console: /page/console.js. One stream of events draws everything; actions are single requests. */

import './console.css'
import { Charts } from './charts.js'
import { find } from './dom.js'
import { Refused, follow, json, post } from './feed.js'
import { Panels } from './panels.js'
import { Story } from './story.js'
import { Generations } from './table.js'

const TABS = ['now', 'charts', 'machines', 'events', 'work', 'usage']
const NOTICE_MS = 8_000
const BACKENDS_MS = 10_000
/** Generations that one request cancels at most. */
const STEP = 200

let stream = new AbortController()
let tab = 'now'

const notice = (text: string): void => {
  const place = find('#notice')
  place.textContent = text
  place.hidden = false
  setTimeout(() => { if (place.textContent === text) place.hidden = true }, NOTICE_MS)
}

async function sure(text: string, yes: string): Promise<boolean> {
  const dialog = find<HTMLDialogElement>('#sure')
  find('#sure-text').textContent = text
  find('#sure-yes').textContent = yes
  dialog.returnValue = ''
  dialog.showModal()
  await new Promise((resolve) => dialog.addEventListener('close', resolve, { once: true }))
  return dialog.returnValue === 'yes'
}

/** Cancel what the filters show, in steps: the button and the question say how many. */
async function cancelAll(): Promise<void> {
  const count = generations.unfinished
  const filter = generations.filter()
  const which = Object.entries(filter).map(([name, value]) => `${name === 'search' ? 'id' : name} ${value}`).join(', ')
  const many = count === 1 ? 'the 1 generation' : `the ${count} generations`
  if (!count || !await sure(`Cancel ${many} ${which ? `with ${which}` : 'of all owners'}? Readers get what there is, and the end. This cannot be undone.`, `Cancel ${count}`)) return
  let done = 0
  try {
    for (let left = 1; left && done < count;) {
      const query = new URLSearchParams({ ...filter, at_most: String(Math.min(STEP, count - done)) })
      const found = await post(`/v1/console/generations/cancel?${query}`)
      left = found.left
      done += found.cancelled
      notice(`${done} of ${count} generations are cancelled.`)
    }
    if (done < count) notice(`${done} of ${count} generations are cancelled; the others have ended.`)
  } catch (error) {
    notice(`${done} of ${count} generations are cancelled. ${(error as Error).message}`)
  }
}

/** Deliver all dead webhooks again, in steps. */
async function redriveAll(count: number): Promise<void> {
  if (!await sure(`Deliver all ${count} webhooks again? Each gets all its attempts.`, 'Deliver them')) return
  let done = 0
  try {
    for (;;) {
      const { redriven, left } = await post('/v1/console/webhooks/redrive?all=yes')
      done += redriven
      notice(`${done} webhooks are due again.`)
      if (!left || !redriven) return
    }
  } catch (error) {
    notice(`${done} webhooks are due again. ${(error as Error).message}`)
  }
}

async function act(path: string, done: (answer: any) => string): Promise<void> {
  try {
    notice(done(await post(path)))
  } catch (error) {
    notice((error as Error).message)
  }
}

const charts = new Charts(find('#plots'))
const generations = new Generations(connect, (id) => { location.hash = id }, () => void cancelAll())
const panels = new Panels({
  async drain(worker) {
    if (await sure(`Drain ${worker}? It starts nothing new, hands its answers over, and ends. Its supervisor starts another worker.`, 'Drain')) {
      await act(`/v1/console/workers/${encodeURIComponent(worker)}/drain`, () => `${worker} drains.`)
    }
  },
  async redrive(ids) {
    if (!await sure(`Run the failed lines of ${ids.length === 1 ? ids[0] : `${ids.length} batches`} again?`, 'Run them')) return
    if (ids.length === 1) await act(`/v1/console/batches/${ids[0]}/redrive`, (answer) => `Runs again as ${answer.redriven_as}.`)
    else await act(`/v1/console/batches/redrive?ids=${ids.join(',')}`, ({ data }) => `${data.filter((each: any) => each.redriven_as).length} of ${ids.length} batches run again.`)
  },
  async deliver(id) {
    if (await sure(`Deliver the webhook of ${id} again? It gets all its attempts.`, 'Deliver it')) {
      await act(`/v1/console/webhooks/redrive?ids=${encodeURIComponent(id)}`, ({ redriven }) => redriven ? 'The webhook is due again.' : 'This webhook is due already, or has expired.')
    }
  },
  deliverAll: (count) => void redriveAll(count),
  narrow(worker) {
    location.hash = '/now'
    generations.narrow('worker', worker)
  },
})
const story = new Story(find('#story'), {
  async cancel(id) {
    if (await sure('Cancel this generation? Its readers get what there is, and the end.', 'Cancel it')) {
      await act(`/v1/console/generations/${encodeURIComponent(id)}/cancel`, (answer) => `${answer.id} is ${answer.status}.`)
    }
  },
  notice,
  closed: () => { if (location.hash.startsWith('#gen_')) location.hash = `/${tab}` },
  open: (id) => { location.hash = id },
})

function connect(): void {
  stream.abort()
  stream = new AbortController()
  void follow(generations.query(), {
    event(name, data) {
      if (name === 'rows') generations.show(data)
      else if (name === 'history') charts.add(data)
      else if (name === 'problem') problem(data)
      else panels.take(name, data)
      panels.tiles((each) => charts.latest(each))
    },
    state(state, text) {
      find('#state').dataset.state = state
      find('#state-text').textContent = state === 'live' ? 'live' : state === 'waiting' ? 'connecting' : 'refused'
      if (state === 'refused') problem(text ?? 'refused')
      else if (text) problem(`This node does not show the console now: ${text}. The page tries again.`)
    },
  }, stream.signal)
}

function problem(text: string): void {
  find('#problem').textContent = text
  find('#problem').hidden = !text
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return '' // a link that somebody has broken
  }
}

function route(): void {
  const name = decoded(location.hash.slice(1)).replace(/^\//, '') // `#/now`: the browser scrolls to no element
  if (name.startsWith('gen_')) void story.open(name)
  else tab = TABS.includes(name) ? name : 'now'
  for (const each of TABS) find(`#${each}`).hidden = each !== tab
  for (const link of document.querySelectorAll<HTMLElement>('#tabs a')) {
    if (link.dataset.tab === tab) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
  if (tab === 'charts') charts.draw()
}

/** Backends are a resource of their own; a server without it shows none. */
async function backends(): Promise<void> {
  try {
    if (!document.hidden) panels.take('backends', (await json('/v1/backends')).backends ?? [])
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return
  }
  setTimeout(backends, BACKENDS_MS)
}

addEventListener('hashchange', route)
// A hidden tab costs nothing; it comes back with the whole picture.
document.addEventListener('visibilitychange', () => { if (document.hidden) stream.abort(); else connect() })
route()
connect()
void backends()
