/** The world outside: clock, random numbers, fetch, WebSocket, credentials. Each can be replaced. */

import { TailraceError } from './errors.js'

/** Hermes, the engine of React Native, may have no such symbol. Babel's loops then look for this name. */
export const ASYNC_ITERATOR: typeof Symbol.asyncIterator = Symbol.asyncIterator ?? ('@@asyncIterator' as any)

export interface Clock {
  now(): number
  setTimeout(callback: () => void, ms: number): unknown
  clearTimeout(timer: unknown): void
}

/** The part of the browser's WebSocket that this package uses; the package `ws` has it, too. */
export interface SocketLike {
  onopen: ((event: any) => void) | null
  onmessage: ((event: any) => void) | null
  onclose: ((event: any) => void) | null
  onerror: ((event: any) => void) | null
  send(data: string): void
  close(code?: number, reason?: string): void
}
export type SocketConstructor = new (url: string, protocols?: string | string[]) => SocketLike

/** A token, or a function that returns one; `isFresh` asks for another one than the last. */
export type Token = string | null | undefined
export type TokenSource = Token | ((asked: { isFresh: boolean }) => Token | Promise<Token>)

export const systemClock: Clock = {
  now: () => Date.now(),
  setTimeout: (callback, ms) => setTimeout(callback, ms),
  clearTimeout: (timer) => clearTimeout(timer as ReturnType<typeof setTimeout>),
}

export interface Environment {
  /** Of the server, without a slash at its end. */
  url: string
  clock: Clock
  random: () => number
  fetch: typeof fetch
  WebSocket: SocketConstructor | undefined
  credentials: Credentials
  /** The longest wait for the head of an answer or for an open socket, ms. */
  openMs: number
  /** Gets each error after which the client waits and tries again; may throw. */
  onRetry?: (error: TailraceError) => void
}

/**
 * The token in use. A function is asked once more after a refusal. A token that is refused directly
 * after that is wrong for good.
 */
export class Credentials {
  private known: Promise<Token> | undefined
  private refusals = 0

  constructor(private readonly source: TokenSource) {}

  async token(): Promise<Token> {
    if (typeof this.source !== 'function') return this.source
    const source = this.source
    const isFresh = this.refusals > 0
    this.known ??= (async () => source({ isFresh }))()
    try {
      return await this.known
    } catch (cause) {
      this.known = undefined
      const message = `The token function failed: ${String(cause)}`
      throw new TailraceError('unauthorized', message, { retryable: false, cause })
    }
  }

  accepted(): void {
    this.refusals = 0
  }

  /** Returns whether another token may help. */
  refused(used: Token): boolean | Promise<boolean> {
    if (typeof this.source !== 'function') return false
    return (this.known ?? Promise.resolve(undefined)).then((known) => {
      if (known !== used) return true // another request has asked for a new token already
      this.known = undefined
      this.refusals += 1
      return this.refusals === 1
    })
  }
}

export function baseOf(url: string): string {
  if (!/^https?:\/\/[^/]/.test(url)) {
    throw new TailraceError('usage', `url must begin with http:// or https://, got ${JSON.stringify(url)}`, {
      retryable: false,
    })
  }
  return url.replace(/\/+$/, '').replace(/\/v1$/, '')
}
