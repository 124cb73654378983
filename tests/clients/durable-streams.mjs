// The client of Durable Streams and its transport for TanStack AI, told by lines of JSON on stdin what to do. The way to
// the node can be cut meanwhile; the clients are left to help themselves.
import { createInterface } from "node:readline"
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client"
import {
  appendSanitizedChunksToStream,
  durableStreamConnection,
} from "@durable-streams/tanstack-ai-transport"

const say = (said) => process.stdout.write(JSON.stringify(said) + "\n")
const running = new Map()
// When a body breaks off, the client also rejects promises that nobody else can reach.
process.on("unhandledRejection", () => {})

// The producer sends a request once; the three headers make a repeat safe.
async function insisting(...request) {
  for (;;) {
    try {
      const response = await fetch(...request)
      if (response.status < 500) return response
    } catch {
      // The node is gone: the next request finds another one.
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

async function produce({ url, pieces }) {
  const handle = await DurableStream.create({ url, contentType: "text/plain" })
  const errors = []
  const producer = new IdempotentProducer(handle, "js", {
    maxInFlight: 1,
    lingerMs: 0,
    fetch: insisting,
    onError: (error) => errors.push(String(error)),
  })
  for (let n = 0; n < pieces; n += 1) {
    producer.append(` piece ${n},`)
    await producer.flush()
  }
  await producer.close()
  return errors
}

// A read that broke off is begun again behind what it gave: the client reconnects by itself only after a regular end.
async function resuming(seen, read) {
  let offset = "-1"
  for (;;) {
    try {
      const response = await read(offset, (batch) => {
        offset = batch.offset
      })
      await response.closed
      // `closed` may be fulfilled before the last batch has been given out.
      while (offset !== response.offset) await new Promise((resolve) => setTimeout(resolve, 5))
      if (response.streamClosed) return seen
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
}

const follow = ({ url, live }, seen) =>
  resuming(seen, async (offset, note) => {
    const response = await stream({ url, live, offset })
    response.subscribeText((batch) => {
      seen.text += batch.text
      note(batch)
    })
    return response
  })

const generation = ({ url, live }, seen) =>
  resuming(seen, async (offset, note) => {
    const response = await stream({ url, live, offset, json: true })
    response.subscribeJson((batch) => {
      for (const event of batch.items) {
        seen.text += event.type === "token" ? event.text : ""
        seen.ids.push(event.id)
      }
      note(batch)
    })
    return response
  })

const chunk = (type, more) => ({ type, messageId: "m1", ...more })

async function chat({ url, writeUrl, pieces }, seen) {
  // The transport appends without a producer id, so a repeat would append twice: its node stays.
  const handle = await DurableStream.create({ url: writeUrl, contentType: "application/json" })
  await appendSanitizedChunksToStream(handle, [chunk("TEXT_MESSAGE_START", { role: "assistant" })])
  const connection = durableStreamConnection({
    sendUrl: url,
    readUrl: url,
    emitSnapshotOnSubscribe: false,
  })
  const reading = (async () => {
    for (;;) {
      try {
        for await (const part of connection.subscribe()) {
          seen.text += part.delta ?? ""
          if (part.type === "TEXT_MESSAGE_END") return
        }
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 50)) // `subscribe` goes on where it was
      }
    }
  })()
  for (let n = 0; n < pieces; n += 1) {
    await appendSanitizedChunksToStream(handle, [
      chunk("TEXT_MESSAGE_CONTENT", { delta: ` piece ${n},` }),
    ])
  }
  await appendSanitizedChunksToStream(handle, [chunk("TEXT_MESSAGE_END")])
  await reading
  return seen.text
}

async function snapshot({ url }) {
  const connection = durableStreamConnection({ sendUrl: url, readUrl: url })
  for await (const part of connection.subscribe()) return part
}

const OPS = { produce, follow, generation, chat, snapshot }

createInterface({ input: process.stdin }).on("line", async (line) => {
  const { op, name, ...told } = JSON.parse(line)
  if (op === "begin") {
    const seen = { text: "", ids: [] }
    running.set(name, { seen, over: OPS[told.what](told, seen) })
    running.get(name).over.catch(() => {})
    say({})
  } else if (op === "seen") {
    say({ value: running.get(name).seen.text.length })
  } else {
    running.get(name).over.then(
      (value) => say({ value }),
      (error) => say({ error: String(error) }),
    )
  }
})
