// Audio to a server in memory, over connections that break, on a clock that the test moves.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TailraceAudio } from '../.build/audio.js'
import { Outgoing } from '../.build/audio/outgoing.js'
import { Clock, settle } from './clock.mjs'

/** The audio of one generation, as docs/protocol.md describes it. `plan`: what happens to the next chunks. */
class Server {
  clock = new Clock()
  chunks = []
  isComplete = false
  unread = 0
  windowMax = 1_048_576
  status = 'running'
  plan = []
  sockets = []
  refused = []
  /** No socket opens here. */
  hasSockets = true

  get audio() {
    return Buffer.concat(this.chunks).toString()
  }

  get window() {
    return Math.max(0, this.windowMax - this.unread)
  }

  state = () => ({
    next_seq: this.chunks.length + 1, window_bytes: this.status === 'running' ? this.window : 0,
    is_complete: this.isComplete, status: this.status,
  })

  /** Returns the error code, or nothing. */
  put(seq, bytes, isLast) {
    if (this.status !== 'running') return 'generation_ended'
    const next = this.chunks.length + 1
    if (seq > next) return 'sequence_gap'
    if (seq < next) {
      assert.equal(Buffer.compare(this.chunks[seq - 1], bytes), 0, 'a repeat must be the same')
      return undefined
    }
    assert.equal(this.isComplete, false, 'nothing may follow the last chunk')
    assert.ok(bytes.length <= 65_536)
    if (bytes.length > this.window) return 'audio_full'
    this.chunks.push(Buffer.from(bytes))
    this.unread += bytes.length
    this.isComplete = isLast
    return undefined
  }

  options(more = {}) {
    const server = this
    class WebSocket {
      constructor(url) {
        assert.match(url, /^ws:\/\/node\/v1\/ws/)
        this.isOpen = true
        server.sockets.push(this)
        if (server.hasSockets) queueMicrotask(() => this.onopen?.())
        else queueMicrotask(() => this.drop(1006))
      }
      send(data) {
        if (this.isOpen && !this.isDeaf) server.take(this, data)
      }
      say(frame) {
        queueMicrotask(() => this.onmessage?.({ data: JSON.stringify(frame) }))
      }
      close() {
        this.isOpen = false
      }
      drop(code = 1006) {
        this.isOpen = false
        queueMicrotask(() => this.onclose?.({ code }))
      }
    }
    return { url: 'http://node', clock: this.clock, random: () => 0.5, fetch: this.fetch, WebSocket, ...more }
  }

  take(socket, data) {
    if (typeof data === 'string') {
      const { type, id } = JSON.parse(data)
      if (type === 'hello') socket.say({ type: 'hello', heartbeat_s: 15 })
      else if (type === 'ping') socket.say({ type: 'pong' })
      else socket.say({ type: 'audio_state', id, ...this.state() })
      return
    }
    const raw = Buffer.from(data)
    const at = raw.indexOf(10)
    const { type, id, seq, last = false } = JSON.parse(raw.subarray(0, at))
    assert.deepEqual([type, id], ['audio', 'gen_a'])
    const step = this.plan.shift()
    if (step === 'cut before') return socket.drop()
    if (step === 'no answer') return
    const code = step === 'full' ? 'audio_full' : this.put(seq, raw.subarray(at + 1), last)
    if (step === 'cut after') return socket.drop()
    if (code) {
      this.refused.push(code)
      const more = code === 'audio_full' ? { retryable: true, retry_after_s: 2 } : { retryable: false, next_seq: this.state().next_seq }
      return socket.say({ type: 'error', id, code, message: code, ...more })
    }
    socket.say({ type: 'audio_received', id, seq, window_bytes: this.window })
  }

  fetch = async (url, { body, method }) => {
    const { pathname, searchParams } = new URL(url)
    const answer = (content, status = 200) =>
      new Response(JSON.stringify(content), { status, headers: { 'content-type': 'application/json' } })
    if (pathname === '/v1/generations') {
      this.started = JSON.parse(body)
      return answer({ id: 'gen_a' }, 202)
    }
    if (pathname.endsWith('/cancel')) {
      this.status = 'cancelled'
      return answer({ id: 'gen_a', status: 'cancelled' })
    }
    if (method === 'GET') return answer({ id: 'gen_a', ...this.state() })
    const step = this.plan.shift()
    if (step === 'cut before') throw new TypeError('the network is gone')
    const seq = Number(searchParams.get('seq'))
    const code = this.put(seq, body, searchParams.get('last') === 'true')
    if (step === 'cut after') throw new TypeError('the answer is lost')
    if (code) return answer({ error: { code, message: code, retryable: code === 'audio_full', retry_after_s: 2 } }, 409)
    return answer({ id: 'gen_a', received_seq: seq, ...this.state() })
  }
}

const bytes = (text) => new TextEncoder().encode(text)

async function started(server, options) {
  const recording = await new TailraceAudio(server.options(options)).start({ model: 'scribe' })
  await settle()
  return recording
}

for (const transport of ['websocket', 'http']) {
  test(`${transport}: each piece arrives once and in order, whatever connection breaks`, async () => {
    const server = new Server()
    server.plan = [undefined, 'cut before', 'cut after', undefined, 'cut after', 'cut before']
    const recording = await started(server, { transport })
    for (const piece of ['one ', 'two ', 'three ', 'four ', 'five ']) {
      await recording.write(bytes(piece))
      await server.clock.move(3_000)
    }
    const finished = recording.finish()
    await server.clock.move(20_000)
    await finished

    assert.equal(server.audio, 'one two three four five ')
    assert.equal(server.isComplete, true)
    assert.equal(recording.bufferedBytes, 0)
    assert.deepEqual(server.started, { model: 'scribe', audio: { media_type: 'audio/pcm;rate=16000;channels=1' } })
  })

  test(`${transport}: a server without room stops the sender, and no chunk is refused`, async () => {
    const server = new Server()
    server.windowMax = 10
    const recording = await started(server, { transport, bufferBytesMax: 20 })
    assert.equal(recording.offer(bytes('0123456789')), true)
    await server.clock.move(100)
    assert.equal(recording.offer(bytes('abcdefghijklmnopqrst')), true)
    assert.equal(recording.offer(bytes('u')), false)
    await server.clock.move(5_000)
    assert.equal(server.audio, '0123456789')
    assert.equal(recording.bufferedBytes, 20)

    const writing = recording.write(bytes('uvwxyz'))
    const finishing = writing.then(() => recording.finish())
    for (let turn = 0; turn < 20; turn += 1) {
      server.unread = Math.max(0, server.unread - 4) // the worker reads
      await server.clock.move(5_000)
    }
    await finishing

    assert.equal(server.audio, '0123456789abcdefghijklmnopqrstuvwxyz')
    assert.deepEqual(server.refused, [])
  })
}

test('a chunk that found no room is sent again after the pause that the server names', async () => {
  const server = new Server()
  const recording = await started(server)
  server.plan = ['full']
  for (const piece of ['one ', 'two ', 'three ']) recording.offer(bytes(piece))
  await server.clock.move(1_500)
  assert.equal(server.audio, '')
  assert.deepEqual(server.refused, ['audio_full', 'sequence_gap', 'sequence_gap'])
  await server.clock.move(1_000)

  assert.equal(server.audio, 'one two three ')
  assert.equal(server.sockets.length, 1)
  recording.close()
})

test('chunks that the server has lost after it acknowledged them are sent again', async () => {
  const server = new Server()
  const recording = await started(server)
  for (const piece of ['one ', 'two ', 'three ']) {
    recording.offer(bytes(piece))
    await settle()
  }
  server.chunks.length = 1 // Redis has failed over
  server.sockets[0].drop()
  await server.clock.move(2_000)

  assert.equal(server.audio, 'one two three ')
  recording.close()
})

test('bytes that the server has lost and that are no longer kept are an error', async () => {
  const outgoing = new Outgoing(10_000_000)
  outgoing.state({ next_seq: 1, window_bytes: 10_000_000 })
  outgoing.offer(new Uint8Array(4_000_000))
  for (let chunk = outgoing.next(); chunk; chunk = outgoing.next()) outgoing.received(chunk.seq, 10_000_000)
  outgoing.forget()

  assert.throws(() => outgoing.state({ next_seq: 2, window_bytes: 0 }), { code: 'audio_lost', retryable: false })
})

test('another sender of the same audio is an error', async () => {
  const outgoing = new Outgoing(100)
  outgoing.state({ next_seq: 1, window_bytes: 100 })

  assert.throws(() => outgoing.state({ next_seq: 5, window_bytes: 100 }), { code: 'sequence_conflict' })
  assert.throws(() => outgoing.received(1, 100), { code: 'sequence_conflict' })
})

test('where no WebSocket opens, the chunks go over HTTP', async () => {
  const server = new Server()
  server.hasSockets = false
  const recording = await started(server)
  recording.offer(bytes('one '))
  const finished = recording.finish()
  await server.clock.move(5_000)
  await finished

  assert.equal(server.audio, 'one ')
  assert.equal(server.sockets.length, 1)
})

test('a socket that says nothing is replaced', async () => {
  const server = new Server()
  const states = []
  const recording = await started(server, { onConnection: (state) => states.push(state) })
  server.sockets[0].isDeaf = true
  recording.offer(bytes('one '))
  await server.clock.move(40_000)

  assert.equal(server.audio, 'one ')
  assert.deepEqual(states, ['live', 'lost', 'live'])
  recording.close()
})

test('a socket that stops answering is replaced long before the server gives up waiting for audio', async () => {
  const server = new Server()
  const recording = await started(server)
  recording.offer(bytes('one '))
  await server.clock.move(1_000)
  server.sockets[0].isDeaf = true
  for (let spoken = 0; spoken < 110; spoken += 1) {
    recording.offer(bytes(`${spoken} `))
    await server.clock.move(100)
  }

  assert.equal(server.sockets.length, 2)
  assert.match(server.audio, /^one 0 1 2 .* 109 $/)
  recording.close()
})

test('the empty last chunk, too, is sent again over another socket when no answer comes', async () => {
  const server = new Server()
  const recording = await started(server)
  recording.offer(bytes('one '))
  server.plan = [undefined, 'no answer']
  const finished = recording.finish()
  await settle()
  server.sockets[0].isDeaf = true
  await server.clock.move(11_000)
  await finished

  assert.equal(server.isComplete, true)
})

test('a recording without sound to send keeps its socket', async () => {
  const server = new Server()
  const recording = await started(server)
  recording.offer(bytes('one '))
  await server.clock.move(60_000)

  assert.equal(server.sockets.length, 1)
  recording.close()
})

test('a line on which a large chunk takes long keeps its socket', async () => {
  const server = new Server()
  const recording = await started(server)
  server.sockets[0].isDeaf = true
  recording.offer(new Uint8Array(65_536))
  await server.clock.move(20_000)

  assert.equal(server.sockets.length, 1)
  recording.close()
})

test('a generation that others have ended stops the recording', async () => {
  const server = new Server()
  const recording = await started(server)
  server.status = 'cancelled'
  recording.offer(bytes('one '))
  await settle()

  await assert.rejects(recording.finish(), { code: 'generation_ended' })
  assert.throws(() => recording.offer(bytes('two ')), { code: 'generation_ended' })
  assert.equal(recording.stoppedBy.code, 'generation_ended')
})

test('a lost confirmation of the last chunk is no error, although the generation has ended meanwhile', async () => {
  const server = new Server()
  const recording = await started(server)
  server.plan = [undefined, 'cut after']
  recording.offer(bytes('one '))
  const finished = recording.finish()
  await settle()
  server.status = 'completed'
  await server.clock.move(5_000)

  await finished
  assert.equal(server.audio, 'one ')
})

test('a generation that ended during an outage stops the recording, also before there is more to send', async () => {
  const server = new Server()
  const recording = await started(server)
  server.status = 'failed'
  server.sockets[0].drop()
  await server.clock.move(5_000)

  assert.equal(recording.stoppedBy.code, 'generation_ended')
  assert.equal(recording.stoppedBy.members.status, 'failed')
})

test('to cancel ends the generation, and nothing more is sent', async () => {
  const server = new Server()
  const recording = await started(server)
  recording.offer(bytes('one '))
  await settle()

  assert.deepEqual(await recording.cancel(), { id: 'gen_a', status: 'cancelled' })
  await assert.rejects(recording.finish(), { code: 'aborted' })
  assert.equal(server.sockets[0].isOpen, false)
  assert.equal(server.clock.timers.size, 0)
})

test('after a reload the audio of a generation can be ended, behind what the server has', async () => {
  const server = new Server()
  const recording = await started(server)
  recording.offer(bytes('one '))
  await settle()
  recording.close()
  const again = new TailraceAudio(server.options()).open('gen_a')
  const finished = again.finish()
  await server.clock.move(100)
  await finished

  assert.equal(server.audio, 'one ')
  assert.equal(server.chunks.length, 2)
  assert.equal(server.isComplete, true)
  await new TailraceAudio(server.options()).open('gen_a').finish() // also of one that is complete
})

test('a long outage within the limit keeps the audio, and one beyond gives up', async () => {
  const server = new Server()
  const recording = await started(server, { transport: 'websocket', giveUpMs: 60_000 })
  server.hasSockets = false
  server.sockets[0].drop()
  recording.offer(bytes('one '))
  await server.clock.move(40_000)
  server.hasSockets = true
  await server.clock.move(30_000)
  assert.equal(server.audio, 'one ')

  server.hasSockets = false
  server.sockets.at(-1).drop()
  const finished = assert.rejects(recording.finish(), { code: 'gave_up' })
  await server.clock.move(120_000)
  await finished
})

test('what cannot be sent is refused where it is given', async () => {
  const server = new Server()
  assert.throws(() => new TailraceAudio(server.options({ transport: 'pigeon' })), { code: 'usage' })
  const recording = await started(server, { bufferBytesMax: 10 })
  assert.throws(() => recording.offer(new Uint8Array(11)), { code: 'usage' })
  await recording.write(new Uint8Array(25).buffer)
  await recording.finish()
  assert.throws(() => recording.offer(bytes('x')), { code: 'usage' })
  assert.equal(server.audio.length, 25)
})
