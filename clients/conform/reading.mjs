// Reads server-sent events as a client that comes back does. No dependency.

/** An event stream did not do what the case needs. */
export class Failure extends Error {}

export function check(isRight, message) {
  if (!isRight) throw new Failure(message)
}

/** Splits a body into events; an event without its blank line does not count. */
export class Parser {
  buffer = ''
  fields = {}
  events = []
  decoder = new TextDecoder()

  feed(bytes) {
    this.buffer += this.decoder.decode(bytes, { stream: true })
    const lines = this.buffer.split(/\r\n|\n|\r(?!$)/)
    this.buffer = lines.pop()
    for (const line of lines) this.line(line)
  }

  line(line) {
    if (line === '') {
      if ('data' in this.fields) this.events.push({ type: this.fields.event ?? 'message', id: this.fields.id, data: this.fields.data })
      this.fields = {}
      return
    }
    const colon = line.indexOf(':')
    if (colon === 0) return // a comment: a heartbeat
    const name = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
    this.fields[name] = name === 'data' && 'data' in this.fields ? `${this.fields.data}\n${value}` : value
  }
}

/** The server under test, as the command line describes it. */
export class Target {
  constructor(options) {
    Object.assign(this, options)
  }

  get headers() {
    return Object.fromEntries((this.header ?? []).map((each) => [each.slice(0, each.indexOf(':')).trim(), each.slice(each.indexOf(':') + 1).trim()]))
  }

  isEnd(event) {
    return event.type === this.endEvent || (this.endData !== undefined && event.data === this.endData)
  }

  /** Start an answer; returns its id. */
  async start(body = this.startBody) {
    const response = await fetch(this.url + this.startPath, {
      method: 'POST', headers: { 'content-type': 'application/json', ...this.headers }, body,
      signal: AbortSignal.timeout(this.limitS * 1000),
    })
    const text = await response.text()
    check(response.ok, `POST ${this.startPath} was answered ${response.status}: ${text.slice(0, 200)}`)
    let id
    try {
      id = this.idMember.split('.').reduce((value, member) => value[member], JSON.parse(text))
    } catch {
      id = undefined
    }
    check(typeof id === 'string' || typeof id === 'number', `the answer to POST has no member "${this.idMember}": ${text.slice(0, 200)}`)
    return String(id)
  }

  eventsUrl(id, base = this.url) {
    return base + this.eventsPath.replaceAll('{id}', encodeURIComponent(id))
  }

  /**
   * Open one connection and read until the end event, the end of the body, or a cut.
   * `cutAt`: break the connection after so many bytes. `stopAfter`: leave after so many events.
   */
  async read(id, { after, base, cutAt = Infinity, stopAfter = Infinity, limitS = this.limitS } = {}) {
    const began = performance.now()
    const stop = new AbortController()
    const timer = setTimeout(() => stop.abort(), limitS * 1000)
    const parser = new Parser()
    const got = { status: 0, type: '', events: parser.events, times: [], bytes: 0, isEnded: false, isClosed: false, isLate: false }
    try {
      const response = await fetch(this.eventsUrl(id, base), {
        headers: { accept: 'text/event-stream', ...this.headers, ...(after === undefined ? {} : { 'last-event-id': after }) },
        signal: stop.signal,
      })
      got.status = response.status
      got.type = response.headers.get('content-type') ?? ''
      if (!response.body) return { ...got, isClosed: true }
      for await (const data of response.body) {
        const part = data.subarray(0, Math.max(0, cutAt - got.bytes))
        got.bytes += part.length
        parser.feed(part)
        while (got.times.length < parser.events.length) got.times.push(performance.now() - began)
        if (got.bytes >= cutAt || parser.events.length >= stopAfter) break
        if (parser.events.some((each) => this.isEnd(each))) {
          got.isEnded = true
          break
        }
      }
      got.isClosed = !got.isEnded && got.bytes < cutAt && parser.events.length < stopAfter
    } catch (error) {
      got.isLate = stop.signal.aborted
      if (!got.isLate && !got.status) throw new Failure(`no connection: ${error.cause?.message ?? error.message}`)
    } finally {
      clearTimeout(timer)
      stop.abort()
    }
    got.isEnded ||= parser.events.some((each) => this.isEnd(each))
    if (parser.events.length > stopAfter) parser.events.length = stopAfter
    return got
  }

  /** Read a whole answer from its start. */
  async whole(id, options) {
    const got = await this.read(id, options)
    check(got.status === 200, `the events were answered ${got.status}`)
    check(!got.isLate, `no end within ${this.limitS} s`)
    check(got.isEnded, 'the stream closed without its end event: a reader cannot tell a whole answer from a part')
    return got
  }
}

/** Compare two lists of events; throws what is wrong in words. */
export function same(found, expected, where) {
  const wanted = expected.map((each) => each.id)
  const ids = found.map((each) => each.id)
  const twice = ids.find((id, at) => ids.indexOf(id) !== at)
  check(twice === undefined, `${where}: the event ${twice} came twice`)
  const lost = wanted.find((id) => !ids.includes(id))
  check(lost === undefined, `${where}: the event ${lost} is lost (${ids.length} of ${wanted.length} events came)`)
  const extra = ids.find((id) => !wanted.includes(id))
  check(extra === undefined, `${where}: the event ${extra} came again, or from nowhere`)
  check(ids.every((id, at) => id === wanted[at]), `${where}: the events came in another order`)
  const changed = found.find((each, at) => each.data !== expected[at].data)
  check(changed === undefined, `${where}: the event ${changed?.id} has other data`)
}
