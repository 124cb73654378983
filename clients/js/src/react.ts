/** `tailrace/react`: hooks for one answer, and for all answers of a session. They draw once for each frame. */

import { useCallback, useEffect, useRef, useState } from 'react'
import type { Answer } from './answer.js'
import type { GenerateOptions, Tailrace } from './client.js'
import type { EndError, TailraceEvent } from './events.js'
import { perFrame } from './frames.js'

export interface GenerationState {
  id: string | undefined
  text: string
  reasoning: string
  status: 'idle' | 'running' | 'completed' | 'cancelled' | 'failed'
  /** Why it failed: the server's reason, or an error of the client, whose `retryable` says what to do. */
  error: EndError | Error | undefined
}

const IDLE: GenerationState = { id: undefined, text: '', reasoning: '', status: 'idle', error: undefined }

function fold(state: GenerationState, event: TailraceEvent): GenerationState {
  switch (event.type) {
    case 'token': return { ...state, text: state.text + event.text }
    case 'reasoning': return { ...state, reasoning: state.reasoning + event.text }
    case 'reset': return { ...state, text: '', reasoning: '' }
    case 'end': return { ...state, status: event.status, error: event.error }
    default: return state
  }
}

type Change = (next: (old: GenerationState) => GenerationState) => void

/** Read an answer into `change`. When the signal aborts, the reading ends; this does not cancel. */
async function show(answer: Answer, signal: AbortSignal, change: Change): Promise<void> {
  try {
    for await (const events of perFrame(answer)) {
      if (signal.aborted) return
      change((old) => events.reduce(fold, old))
    }
  } catch (error) {
    if (!signal.aborted) change((old) => ({ ...old, status: 'failed', error: error as Error }))
  }
}

/** One answer at a time: `generate` or `attach` begins it, `cancel` ends it on the server. */
export function useGeneration(client: Tailrace) {
  const [state, setState] = useState<GenerationState>(IDLE)
  /** Of the answer that is shown. */
  const reader = useRef<AbortController | undefined>(undefined)
  const current = useRef<Answer | undefined>(undefined)

  const begin = useCallback((): AbortSignal => {
    reader.current?.abort()
    reader.current = new AbortController()
    current.current = undefined
    setState({ ...IDLE, status: 'running' })
    return reader.current.signal
  }, [])

  const follow = useCallback((answer: Answer, signal: AbortSignal) => {
    current.current = answer
    setState({ ...IDLE, id: answer.id, status: 'running' })
    void show(answer, signal, setState)
  }, [])

  const attach = useCallback((id: string) => {
    const signal = begin()
    follow(client.attach(id, undefined, { signal }), signal)
  }, [client])

  const generate = useCallback(async (options: Omit<GenerateOptions, 'signal'>): Promise<string | undefined> => {
    const signal = begin()
    try {
      const answer = await client.generate({ ...options, signal })
      if (!signal.aborted) follow(answer, signal)
      return answer.id
    } catch (error) {
      if (!signal.aborted) setState({ ...IDLE, status: 'failed', error: error as Error })
      return undefined
    }
  }, [client])

  const cancel = useCallback(async (): Promise<void> => {
    await current.current?.cancel()
  }, [])

  useEffect(() => () => reader.current?.abort(), [client])

  return { ...state, generate, attach, cancel }
}

export interface SessionItem extends GenerationState {
  id: string
  prompt: string
}

/** All answers of a session from old to new, with those that other tabs start. */
export function useSession(client: Tailrace, name: string): { items: SessionItem[]; error: Error | undefined } {
  const [items, setItems] = useState<SessionItem[]>([])
  const [error, setError] = useState<Error | undefined>(undefined)

  useEffect(() => {
    const stopper = new AbortController()
    setItems([])
    setError(undefined)
    void (async () => {
      try {
        for await (const { entry, answer } of client.session(name, { signal: stopper.signal })) {
          if (stopper.signal.aborted) return
          setItems((old) => [...old, { ...IDLE, status: 'running', id: entry.id, prompt: entry.prompt }])
          void show(answer, stopper.signal, (next) => setItems((old) =>
            old.map((item) => (item.id === entry.id ? { ...item, ...next(item), id: item.id } : item))))
        }
      } catch (cause) {
        if (!stopper.signal.aborted) setError(cause as Error)
      }
    })()
    return () => stopper.abort()
  }, [client, name])

  return { items, error }
}
