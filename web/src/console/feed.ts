/** The connection to the node: requests with the operator's key, and the events of the console. */

import { find } from './dom.js'

const KEY = 'tailrace.key' // of this tab; the chat page uses the same
const PAUSE_MS = 500
const PAUSE_MS_MAX = 15_000
/** The server sends a picture every 2 s and a ping every 15 s. */
const SILENCE_MS_MAX = 40_000

export class Refused extends Error {
  constructor(readonly status: number, readonly code: string, message: string) {
    super(message)
  }
}

let asking: Promise<void> | null = null
let remembered = ''

export function key(): string {
  try {
    return sessionStorage.getItem(KEY) ?? remembered
  } catch {
    return remembered
  }
}

/** Send a request; after 401 and 403 ask for another key, and send it again. */
export async function request(path: string, options: RequestInit = {}): Promise<Response> {
  for (;;) {
    const used = key()
    const headers: Record<string, string> = used ? { authorization: `Bearer ${used}` } : {}
    const response = await fetch(path, { ...options, headers, cache: 'no-store' })
    if (response.ok) return response
    const error = await read(response)
    if (error.status !== 401) throw error
    if (used !== key()) continue
    asking ??= askKey(used ? 'This key is not known here. Try another.' : '').finally(() => { asking = null })
    await asking
  }
}

export const json = async (path: string): Promise<any> => (await request(path)).json()
export const post = async (path: string): Promise<any> => (await request(path, { method: 'POST' })).json()

async function read(response: Response): Promise<Refused> {
  try {
    const { error } = await response.json()
    return new Refused(response.status, error.code, error.message)
  } catch {
    return new Refused(response.status, '', `the node answered ${response.status}`)
  }
}

function askKey(problem: string): Promise<void> {
  const dialog = find<HTMLDialogElement>('#ask-key')
  const input = find<HTMLInputElement>('#key')
  if (problem) find('#key-problem').textContent = problem
  dialog.showModal()
  input.focus()
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      remembered = input.value.trim()
      try {
        sessionStorage.setItem(KEY, remembered)
      } catch { /* this browser keeps nothing: the key lives as long as the page */ }
      input.value = ''
      resolve()
    }, { once: true })
  })
}

export interface Listener {
  event(name: string, data: any): void
  state(state: 'live' | 'waiting' | 'refused', text?: string): void
}

/** Follow the console's events until `signal`; a connection that ends is opened again. */
export async function follow(query: string, listener: Listener, signal: AbortSignal): Promise<void> {
  for (let attempt = 0; !signal.aborted; attempt += 1) {
    try {
      for await (const [name, data] of events(`/v1/console?${query}`, signal)) {
        attempt = 0
        listener.state('live')
        listener.event(name, data)
      }
    } catch (error) {
      if (signal.aborted) return
      const isFinal = error instanceof Refused && error.status < 500 && error.status !== 429
      listener.state(isFinal ? 'refused' : 'waiting', error instanceof Refused ? error.message : undefined)
      if (isFinal) return
    }
    if (signal.aborted) return
    listener.state('waiting')
    const pause = Math.min(PAUSE_MS_MAX, PAUSE_MS * 2 ** attempt) * (0.5 + Math.random())
    await new Promise((resolve) => setTimeout(resolve, pause))
  }
}

async function* events(path: string, signal: AbortSignal): AsyncGenerator<[string, any]> {
  const own = new AbortController()
  const stop = () => own.abort()
  signal.addEventListener('abort', stop)
  let timer = setTimeout(stop, SILENCE_MS_MAX)
  try {
    const response = await request(path, { signal: own.signal })
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
    let text = ''
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      clearTimeout(timer)
      timer = setTimeout(stop, SILENCE_MS_MAX)
      text += value.replaceAll('\r', '')
      const blocks = text.split('\n\n')
      text = blocks.pop()!
      for (const block of blocks) {
        const found = /^event: (\w+)\ndata: (.*)$/.exec(block)
        if (found) yield [found[1]!, JSON.parse(found[2]!)]
      }
    }
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', stop)
    own.abort()
  }
}
