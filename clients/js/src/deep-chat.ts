/**
 * `tailrace/deep-chat`: a `handler` for deep-chat's `connect`, whose answers survive broken connections
 * and whose stop button stops the answer on the server.
 *
 *   chat.connect = { stream: true, handler: deepChatHandler(client, { model: 'demo' }) }
 */

import type { GenerateOptions, Tailrace } from './client.js'

/** The signals of deep-chat 2.4. */
export interface Signals {
  onOpen: () => void
  onClose: () => void
  onResponse: (response: { text?: string; error?: string; overwrite?: boolean }) => unknown
  stopClicked: { listener: () => void }
}

interface Body { messages?: { role?: string; text?: string }[] }

export function deepChatHandler(client: Tailrace, options: Omit<GenerateOptions, 'prompt' | 'messages'> = {}) {
  return async (body: Body, signals: Signals): Promise<void> => {
    const messages = (body.messages ?? []).map(({ role, text }) => ({
      role: role === 'ai' ? 'assistant' : (role ?? 'user'), content: text ?? '',
    }))
    let isStopped = false
    let cancel = () => {}
    signals.stopClicked.listener = () => { isStopped = true; cancel() }
    let overwrite = false
    try {
      const answer = await client.generate({ ...options, messages })
      cancel = () => void answer.cancel().catch(() => {})
      if (isStopped) cancel()
      signals.onOpen()
      for await (const event of answer) {
        if (event.type === 'reset') overwrite = true
        // The component ignores an overwrite without text, so the next text carries the overwrite.
        else if (event.type === 'token' && event.text) {
          signals.onResponse({ text: event.text, ...(overwrite ? { overwrite } : {}) })
          overwrite = false
        } else if (event.type === 'end' && event.status === 'failed') {
          signals.onResponse({ error: event.error?.message ?? 'The answer failed.' })
        }
      }
    } catch (error) {
      signals.onResponse({ error: error instanceof Error ? error.message : String(error) })
    }
    signals.onClose()
  }
}
