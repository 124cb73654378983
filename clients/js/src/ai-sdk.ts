/**
 * `tailrace/ai-sdk`: a `ChatTransport` for `useChat`. Its stop stops the answer on the server, and after
 * a break it continues from the exact chunk.
 *
 *   useChat({ id, resume: true, transport: new TailraceChatTransport({ url, token }) })
 */

import { Credentials, baseOf, systemClock, type Clock, type TokenSource } from './environment.js'
import { TailraceError, asError, broken } from './errors.js'
import { randomKey } from './keys.js'
import { isPassing, parseData, replay } from './replay.js'
import { Waker } from './waker.js'

export interface ChatTransportOptions {
  /** Of the server, with or without `/v1`. */
  url: string
  token?: TokenSource
  /** Further members of each request: `model`, `params`, … */
  body?: Record<string, unknown>
  headers?: Record<string, string>
  fetch?: typeof fetch
  clock?: Clock
  random?: () => number
  /** Give up after so long without any connection, ms. Default 120,000. */
  giveUpMs?: number
}

/** What this package takes from `useChat`: the options of `ChatTransport` in `ai` 6 and 7. */
export interface SendOptions {
  trigger: string
  chatId: string
  messageId?: string
  messages: unknown[]
  abortSignal?: AbortSignal
  headers?: Record<string, string> | Headers
  body?: object
  metadata?: unknown
}

/** `any`: the chunks are `UIMessageChunk` of the installed `ai`, which this package does not import. */
type Chunks = ReadableStream<any>

export class TailraceChatTransport {
  /** `reconnectToStream` gives the whole answer from its first chunk. */
  readonly resumeStreamIsReplay = true
  private readonly api: string
  private readonly clock: Clock
  private readonly waker: Waker
  private readonly credentials: Credentials
  private stopping: Promise<void> = Promise.resolve()

  constructor(private readonly options: ChatTransportOptions) {
    this.api = `${baseOf(options.url)}/ai-sdk/chat`
    this.clock = options.clock ?? systemClock
    this.waker = new Waker(this.clock)
    this.credentials = new Credentials(options.token)
  }

  /** Start an answer. When the signal aborts, the answer is cancelled on the server. */
  async sendMessages(asked: SendOptions): Promise<Chunks> {
    const { chatId, messages, trigger, messageId, abortSignal } = asked
    // A stop that arrives after the next prompt would stop that, too.
    await this.stopping
    const key = randomKey()
    const body = JSON.stringify({
      resetStep: true, ...this.options.body, ...asked.body, id: chatId, messages, trigger, messageId,
    })
    const headers = { ...entriesOf(asked.headers), 'content-type': 'application/json', 'idempotency-key': key }
    const start = (signal: AbortSignal) => this.request('', { method: 'POST', body, headers, signal })
    return this.chunks(start, { chatId, abortSignal })
  }

  /** The running answer of a chat, from its first chunk; null when nothing runs. */
  async reconnectToStream({ chatId, headers, abortSignal }: {
    chatId: string; headers?: Record<string, string> | Headers; body?: object; metadata?: unknown; abortSignal?: AbortSignal
  }): Promise<Chunks | null> {
    const limit = new AbortController()
    const path = `/${encodeURIComponent(chatId)}/stream`
    const told = { headers: entriesOf(headers), signal: limit.signal }
    const running = await this.untilAnswered(() => this.request(path, told))
    const run = running.headers.get('x-workflow-run-id')
    limit.abort()
    if (running.status === 204 || !run) return null
    return this.chunks(undefined, { chatId, abortSignal, run })
  }

  private async chunks(
    start: ((signal: AbortSignal) => Promise<Response>) | undefined,
    { chatId, abortSignal, run }: { chatId: string; abortSignal?: AbortSignal; run?: string },
  ): Promise<Chunks> {
    const stopper = new AbortController()
    let controller!: ReadableStreamDefaultController<any>
    let count = 0
    let isDone = false
    const finish = (close: () => void) => {
      isDone = true
      try { close() } catch { /* the reader has left */ }
    }
    // The page's reader leaves: the answer goes on, and `reconnectToStream` finds it.
    const stream = new ReadableStream<any>({
      start: (given) => { controller = given },
      cancel: () => { isDone = true; stopper.abort(broken('The reader has left.')) },
    })
    const stop = () => {
      this.stopping = this.stop(chatId).catch(() => {})
      const reason = abortSignal?.reason
      finish(() => controller.error(reason))
      stopper.abort(broken('The answer was stopped.'))
    }
    if (abortSignal?.aborted) stop()
    abortSignal?.addEventListener('abort', stop, { once: true })
    return new Promise<Chunks>((resolve, reject) => {
      replay({
        clock: this.clock, waker: this.waker, random: this.options.random ?? Math.random,
        giveUpMs: this.options.giveUpMs ?? 120_000, signal: stopper.signal,
        open: async (signal) => {
          const rest = () => this.request(`/${run}/stream?startIndex=${count}`, { signal })
          const response = await (run ? rest() : start!(signal))
          run = response.headers.get('x-workflow-run-id') ?? run
          resolve(stream)
          return response.status === 204 ? undefined : response
        },
        take: (data) => {
          if (data === '[DONE]') return false
          const chunk = parseData(data)
          count += 1
          controller.enqueue(chunk)
          if (chunk.type === 'finish') finish(() => controller.close())
          return true
        },
        isDone: () => isDone,
      })
        .then(() => finish(() => controller.close()))
        .catch((error) => {
          finish(() => controller.error(error))
          reject(error)
        })
        .finally(() => abortSignal?.removeEventListener('abort', stop))
    })
  }

  /** Cancel the running answers of a chat, on any node. Repeated until a node has answered. */
  async stop(chatId: string): Promise<void> {
    await this.untilAnswered(() => this.request(`/${encodeURIComponent(chatId)}/stop`, { method: 'POST' }))
  }

  private async untilAnswered(send: () => Promise<Response>): Promise<Response> {
    let answer: Response | undefined
    await replay({
      clock: this.clock, waker: this.waker, random: this.options.random ?? Math.random,
      giveUpMs: this.options.giveUpMs ?? 120_000, signal: new AbortController().signal,
      open: async () => { answer = await send(); return undefined },
      take: () => false,
      isDone: () => answer !== undefined,
    })
    return answer!
  }

  private async request(path: string, init: RequestInit & { headers?: Record<string, string> }): Promise<Response> {
    for (;;) {
      const token = await this.credentials.token()
      const headers = { ...this.options.headers, ...init.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) }
      const send = this.options.fetch ?? fetch
      const response = await send(this.api + path, { ...init, headers }).catch((cause) => { throw asError(cause) })
      const type = response.headers.get('content-type') ?? ''
      if (response.status === 204 || (response.ok && type.includes('text/event-stream'))) {
        this.credentials.accepted()
        return response
      }
      if (response.ok || isPassing(response.status)) throw broken(`No Tailrace node answered: ${response.status} ${type}`)
      if (response.status === 401 && (await this.credentials.refused(token))) continue
      const message = await response.text()
      throw new TailraceError('refused', message, { retryable: false, status: response.status })
    }
  }
}

const entriesOf = (headers?: Record<string, string> | Headers): Record<string, string> =>
  headers instanceof Headers ? Object.fromEntries(headers.entries()) : { ...headers }
