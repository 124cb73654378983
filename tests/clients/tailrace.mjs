// The package `tailrace`, told by lines of JSON on stdin what to do; it says what came of it.
import { createInterface } from 'node:readline'
import { Tailrace } from '../../clients/js/dist/index.js'
import { TailraceAudio } from '../../clients/js/dist/audio.js'
import { opsOf, told } from './tailrace-ops.mjs'

// Node.js 20 has no WebSocket; Deno and Bun have one.
const WebSocket = globalThis.WebSocket ?? (await import('ws')).WebSocket
const say = (said) => process.stdout.write(JSON.stringify(said) + '\n')
const ops = opsOf({ Tailrace, TailraceAudio, WebSocket, key: process.env.API_KEY || null })

for await (const line of createInterface({ input: process.stdin })) {
  const { op, ...rest } = JSON.parse(line)
  try {
    say({ value: await ops[op](rest) })
  } catch (error) {
    say({ error: told(error) })
  }
}
