/** The messages that a prompt sends along: the conversation before it, as far as the limit reaches. */

import type { Message, Turn } from './turn.js'

/** The newest turns up to this many characters; pictures count, too. */
const CHARACTERS_MAX = 2_000_000

export function historyOf(turns: Turn[]): Message[] {
  const messages: Message[] = []
  let characters = 0
  for (const turn of [...turns].reverse()) {
    if (!turn.isLoaded) break // a history has no holes
    if (!turn.text && !turn.details.length) continue
    if (turn.isRecording) { // its transcript is what the user has said
      messages.unshift({ role: 'user', content: turn.text })
      characters += turn.text.length
      continue
    }
    const content = turn.content ?? turn.prompt
    const asked: Message = { role: 'user', content }
    const answered: Message = { role: 'assistant', content: turn.text }
    // Signed thoughts go back unchanged. docs/protocol.md, "Thoughts that go back".
    if (turn.details.length) answered.reasoning_details = turn.details
    characters += JSON.stringify([asked, answered]).length
    if (characters > CHARACTERS_MAX) break
    messages.unshift(asked, answered)
  }
  return messages
}
