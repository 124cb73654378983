// A node of an application with Vercel's resumable-stream, as its README shows: the node that gets the
// prompt produces the text, and other nodes get the text over Redis. argv: port, URL of Redis.
import { createServer } from 'node:http'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { createClient } from 'redis'
import { createResumableStreamContext } from 'resumable-stream'

const [port, url] = process.argv.slice(2)
const clients = [createClient({ url }), createClient({ url })]
for (const client of clients) client.on('error', () => {})
await Promise.all(clients.map((client) => client.connect()))
const [publisher, subscriber] = clients
const context = createResumableStreamContext({ waitUntil: (promise) => promise.catch(() => {}), publisher, subscriber })

async function* produce({ pieces, per_s }) {
  for (const piece of pieces) {
    yield `event: token\ndata: ${JSON.stringify({ text: piece })}\n\n`
    await sleep(1000 / per_s)
  }
}

const bodyOf = async (request) => {
  let text = ''
  for await (const data of request) text += data
  return JSON.parse(text)
}

const server = createServer(async (request, response) => {
  const asked = new URL(request.url, 'http://node')
  const id = asked.pathname.split('/').at(-1)
  let stream
  try {
    if (request.method === 'POST') {
      const body = await bodyOf(request)
      stream = await context.createNewResumableStream(id, () => Readable.toWeb(Readable.from(produce(body))))
    } else {
      stream = await context.resumeExistingStream(id, Number(asked.searchParams.get('resumeAt')))
    }
  } catch {
    return response.writeHead(500).end()
  }
  if (!stream) return response.writeHead(stream === null ? 422 : 404).end()
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  const reader = stream.getReader()
  response.on('close', () => reader.cancel().catch(() => {}))
  for (;;) {
    const piece = await reader.read().catch(() => undefined)
    if (!piece) return response.destroy()
    if (piece.done) return response.end()
    response.write(piece.value)
  }
})
server.listen(Number(port), '127.0.0.1', () => process.stdout.write('ready\n'))
process.on('SIGTERM', () => server.close(() => process.exit(0)))
