/** One HTTP request to a node: credentials, a limit on the wait, and errors that say what to do. */

import type { Environment } from './environment.js'
import { TailraceError, asError, broken, reasonOf } from './errors.js'

export const FOREIGN = 'No Tailrace node answered'

export interface Asked {
  method?: string
  accept: string
  body?: unknown
  /** A multipart body. */
  form?: FormData
  headers?: Record<string, string>
  signal?: AbortSignal
  /** Added to the limit on the wait for the head, ms: the server holds a long poll. */
  extraMs?: number
}

/** Returns the answer when its head is there: a 2xx of the type asked for, or 204.
 *
 * Throws TailraceError. An answer that no Tailrace node gave (HTML of a proxy or of a captive portal)
 * says nothing about the request, so it is retryable.
 */
export async function request(env: Environment, path: string, asked: Asked): Promise<Response> {
  for (;;) {
    const token = await env.credentials.token()
    const response = await fetchHead(env, path, asked, token ?? undefined)
    const type = response.headers.get('content-type') ?? ''
    if (response.status === 204 || (response.ok && type.includes(asked.accept))) {
      env.credentials.accepted()
      return response
    }
    const error = response.ok
      ? broken(`${FOREIGN}: ${type} is not ${asked.accept}.`)
      : await refusal(response)
    if (response.body) void response.body.cancel().catch(() => {})
    if (error.code !== 'unauthorized' || !(await env.credentials.refused(token))) throw error
  }
}

export async function requestJson<T>(env: Environment, path: string, asked: Omit<Asked, 'accept'> = {}): Promise<T> {
  // The caller's signal may live long, so nothing of this request stays on it.
  const own = new AbortController()
  const abort = () => own.abort(reasonOf(asked.signal!))
  asked.signal?.addEventListener('abort', abort)
  if (asked.signal?.aborted) abort()
  // The head has its own limit; this one is for a body that never ends.
  const ms = 2 * env.openMs + (asked.extraMs ?? 0)
  const timer = env.clock.setTimeout(() => own.abort(broken('The answer stalled.')), ms)
  let text: string
  try {
    const response = await request(env, path, { accept: 'application/json', ...asked, signal: own.signal })
    text = await response.text()
  } catch (cause) {
    throw asError(cause)
  } finally {
    env.clock.clearTimeout(timer)
    asked.signal?.removeEventListener('abort', abort)
  }
  try {
    return JSON.parse(text) as T
  } catch (cause) {
    throw broken('The answer is not complete JSON.', cause)
  }
}

async function fetchHead(env: Environment, path: string, asked: Asked, token?: string): Promise<Response> {
  const headers: Record<string, string> = { accept: asked.accept, ...asked.headers }
  if (token) headers.authorization = `Bearer ${token}`
  if (asked.body !== undefined) headers['content-type'] = 'application/json'
  const limit = new AbortController()
  const abort = () => limit.abort(reasonOf(asked.signal!))
  if (asked.signal?.aborted) abort()
  // The listener stays: the signal also ends the body.
  asked.signal?.addEventListener('abort', abort, { once: true })
  const late = broken(`No answer within ${env.openMs + (asked.extraMs ?? 0)} ms.`)
  const timer = env.clock.setTimeout(() => limit.abort(late), env.openMs + (asked.extraMs ?? 0))
  try {
    return await env.fetch(env.url + path, {
      method: asked.method ?? (asked.body === undefined ? 'GET' : 'POST'),
      headers,
      body: asked.form ?? (asked.body === undefined ? undefined : JSON.stringify(asked.body)),
      signal: limit.signal,
    })
  } catch (cause) {
    throw limit.signal.aborted ? asError(reasonOf(limit.signal)) : asError(cause)
  } finally {
    env.clock.clearTimeout(timer)
  }
}

async function refusal(response: Response): Promise<TailraceError> {
  const { status } = response
  const retryAfterS = Number(response.headers.get('retry-after')) || undefined
  try {
    const { error } = JSON.parse(await response.text())
    // On the paths of OpenAI's API errors have OpenAI's form: there the status says it.
    const retryable = error.retryable ?? (error.type && (status > 499 || status === 429 || status === 408))
    if (typeof error.code === 'string' && typeof retryable === 'boolean') {
      return new TailraceError(error.code, String(error.message), { retryable, status, retryAfterS, members: error })
    }
  } catch {
    // not the answer of a node
  }
  const message = `${FOREIGN}: status ${status}.`
  return new TailraceError('connection', message, { retryable: true, status, retryAfterS })
}
