// Compiled, never run: what a program in TypeScript may write with the package.
import { useChat } from '@ai-sdk/react'
import { AbstractChat, type ChatTransport, type UIMessage } from 'ai'
import OpenAI from 'openai'
import { Tailrace, TailraceError, perFrame, type Result, type TailraceEvent } from 'tailrace'
import { TailraceChatTransport } from 'tailrace/ai-sdk'
import { deepChatHandler } from 'tailrace/deep-chat'
import { resumingFetch } from 'tailrace/openai'
import { shareAmongTabs } from 'tailrace/tabs'
import { useGeneration } from 'tailrace/react'

const client = new Tailrace({ url: 'http://node', token: async () => 'key', transport: 'auto', storage: localStorage })
const text = (event: TailraceEvent): string => (event.type === 'token' ? event.text : '')

export async function reads(): Promise<Result> {
  const answer = await client.generate({ model: 'demo', prompt: 'Hi', session: 's', idempotencyKey: 'k' })
  for await (const event of answer) {
    if (event.type === 'tool_call') event.arguments.trim()
    if (event.type === 'end') event.error?.retryable satisfies boolean | undefined
    text(event)
  }
  for await (const events of perFrame(client.attach(answer.id, answer.cursor))) events.map(text)
  for await (const { answer: other } of client.session('s')) await other.cancel()
  try {
    // @ts-expect-error: the option does not exist
    await client.generate({ promt: 'Hi' })
  } catch (error) {
    if (error instanceof TailraceError) error.retryable satisfies boolean
  }
  return answer.result()
}

const transport: ChatTransport<UIMessage> = new TailraceChatTransport({ url: 'http://node' })
export const chat = () => useChat({ id: 'c', transport })
export const abstract = AbstractChat
export const openai = new OpenAI({ apiKey: 'none', fetch: resumingFetch() })
export const handler = deepChatHandler(client)
export const shared = new Tailrace({ url: 'http://node', transport: shareAmongTabs('me', () => client) })
export const hook = () => useGeneration(client).text satisfies string
