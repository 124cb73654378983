/** One generation, as its reader holds it: events, text, result, cancel. */

import { ASYNC_ITERATOR } from './environment.js'
import { TailraceError, aborted } from './errors.js'
import { START, type EndError, type ResetEvent, type TailraceEvent, type Usage } from './events.js'
import { Reading, type ToolCall } from './reading.js'

/** Events of so many characters of JSON, read since the queue was empty, wait for a slow consumer. */
const QUEUE_CHARACTERS_MAX = 1_048_576

export interface Result {
  id: string
  status: 'completed' | 'cancelled' | 'failed'
  /** The whole answer, also when the reader began at a cursor. */
  text: string
  reasoning: string
  toolCalls: ToolCall[]
  finishReason: string
  model: string
  usage: Usage | undefined
  /** Why it failed, and whether the same prompt may succeed later. */
  error: EndError | undefined
}

export interface TextOptions {
  /** Called when the text begins anew: drop what was shown. Without it `text()` throws `reset`. */
  onReset?: (event: ResetEvent) => void
}

/** What an answer needs of its client. */
export interface AnswerHost {
  follow(id: string, reading: Reading, signal: AbortSignal, onEvent: (event: TailraceEvent) => void): Promise<void>
  snapshot(id: string): Promise<any>
  cancel(id: string): Promise<{ id: string; status: string }>
  /** The consumer has everything up to this cursor. */
  note(id: string, cursor: string, isDone: boolean): void
}

export class Answer implements AsyncIterable<TailraceEvent> {
  private reading: Reading
  private delivered: string
  /** Read, and not taken yet. A full queue ends the connection; an empty one opens the next, at the cursor. */
  private queue: TailraceEvent[] = []
  private queued = 0
  /** Only `result` waited, and the queue was full: an iteration has to read again. */
  private hasGap = false
  private waiting: (() => void)[] = []
  private consumers = 0
  private isIterated = false
  private hasIterated = false
  private reader: AbortController | undefined
  private failure: unknown
  private settled: Promise<Result> | undefined

  constructor(
    private readonly host: AnswerHost,
    /** The generation's id: `client.attach(id)` reads it anywhere. */
    readonly id: string,
    cursor: string = START,
    private readonly signal?: AbortSignal,
  ) {
    this.reading = new Reading(cursor)
    this.delivered = cursor
  }

  /** The id of the last event that the consumer got; '0-0' before the first one. */
  get cursor(): string {
    return this.hasIterated ? this.delivered : this.reading.cursor
  }

  /** The text so far, as far as this reader has read it. */
  get textSoFar(): string {
    return this.reading.text
  }

  /** Events in order, each once, the last one is `end`. To stop iterating does not cancel. */
  async *[ASYNC_ITERATOR](): AsyncGenerator<TailraceEvent, void, undefined> {
    if (this.isIterated) {
      throw new TailraceError('usage', 'This answer is iterated already: attach again.', { retryable: false })
    }
    this.isIterated = this.hasIterated = true
    if (this.hasGap) {
      this.leave()
      this.empty(false)
      this.reading = new Reading(this.delivered)
    }
    this.hold()
    try {
      for (;;) {
        const event = this.queue.shift()
        if (event) {
          this.delivered = event.id
          this.host.note(this.id, event.id, event.type === 'end')
          yield event
        } else if (this.reading.isDone) {
          return
        } else {
          this.resume()
          await this.change()
        }
      }
    } finally {
      this.isIterated = false
      this.release()
    }
  }

  /** The pieces of the text. */
  async *text({ onReset }: TextOptions = {}): AsyncGenerator<string, void, undefined> {
    let hasText = false
    for await (const event of this) {
      if (event.type === 'token') {
        hasText = true
        yield event.text
      } else if (event.type === 'reset') {
        if (onReset) onReset(event)
        else if (hasText) {
          const message = 'The answer begins anew: pass onReset, or read the events.'
          throw new TailraceError('reset', message, { retryable: true })
        }
      }
    }
  }

  /** The whole answer at its end. A generation that failed has the status `failed` and its `error`. */
  result(): Promise<Result> {
    this.settled ??= this.settle().catch((error) => {
      this.settled = undefined
      throw error
    })
    return this.settled
  }

  /** End the generation, on any node. The text so far stays. May be repeated. */
  cancel(): Promise<{ id: string; status: string }> {
    return this.host.cancel(this.id)
  }

  private async settle(): Promise<Result> {
    this.hold()
    try {
      while (!this.reading.isDone) await this.change()
    } finally {
      this.release()
    }
    const result = await this.summary()
    // The caller has the whole answer now.
    if (!this.isIterated) {
      this.empty(false)
      this.delivered = this.reading.cursor
      this.host.note(this.id, this.delivered, true)
    }
    return result
  }

  private async summary(): Promise<Result> {
    const { id, reading } = this
    const { end } = reading
    if (!end || (!reading.isWhole && end.id !== START)) {
      const now = await this.host.snapshot(id)
      return {
        id,
        status: now.status,
        text: now.text ?? '',
        reasoning: now.reasoning ?? '',
        toolCalls: now.tool_calls ?? [],
        finishReason: now.finish_reason ?? '',
        model: now.model ?? '',
        usage: now.usage ?? undefined,
        error: now.error ?? undefined,
      }
    }
    const { text, reasoning, toolCalls, model, usage } = reading
    return { id, status: end.status, text, reasoning, toolCalls, finishReason: end.finish_reason, model, usage, error: end.error }
  }

  /** Return at the next event or at the end; throw when reading has failed. */
  private async change(): Promise<void> {
    if (this.failure && !this.reader) throw this.failure
    await new Promise<void>((resolve) => this.waiting.push(resolve))
    if (this.failure) throw this.failure
  }

  private hold(): void {
    this.consumers += 1
    this.failure = undefined
    this.resume()
  }

  private resume(): void {
    if (!this.reader && !this.failure && !this.reading.isDone) void this.read()
  }

  private leave(): void {
    const { reader } = this
    this.reader = undefined
    reader?.abort(aborted())
  }

  private empty(hasGap: boolean): void {
    this.queue = []
    this.hasGap = hasGap
  }

  private put(event: TailraceEvent): void {
    if (!this.queue.length) this.queued = 0
    this.queue.push(event)
    this.queued += JSON.stringify(event).length
    if (this.queued > QUEUE_CHARACTERS_MAX) {
      if (this.isIterated) this.leave()
      else this.empty(true)
    }
    this.notify()
  }

  /** Without a consumer the connection is closed. The next consumer continues at the cursor. */
  private release(): void {
    this.consumers -= 1
    if (!this.consumers) return this.leave()
    // `result` still waits, for which nothing has to be kept.
    this.resume()
  }

  private async read(): Promise<void> {
    const reader = (this.reader = new AbortController())
    const abort = () =>
      reader.abort(aborted())
    this.signal?.addEventListener('abort', abort, { once: true })
    if (this.signal?.aborted) abort()
    this.failure = undefined
    try {
      await this.host.follow(this.id, this.reading, reader.signal, (event) => this.put(event))
    } catch (error) {
      if (this.reader === reader) this.failure = error
      // A reload would fail in the same way.
      if (error instanceof TailraceError && !error.retryable) this.host.note(this.id, this.cursor, true)
    } finally {
      this.signal?.removeEventListener('abort', abort)
      if (this.reader === reader) this.reader = undefined
      this.notify()
    }
  }

  private notify(): void {
    for (const resolve of this.waiting.splice(0)) resolve()
  }
}
