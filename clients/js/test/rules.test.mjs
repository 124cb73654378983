// The rules without I/O: cursor, repeats, reset, end, pauses, silence, choice of transport.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BackOff } from '../.build/backoff.js'
import { compareIds, readEvent } from '../.build/events.js'
import { AUTO, LEFT_FOR_MS, Picker } from '../.build/picker.js'
import { Reading } from '../.build/reading.js'
import { rest } from '../.build/tabs.js'
import { Watchdog } from '../.build/watchdog.js'

const token = (id, text) => ({ type: 'token', id, text })

test('event ids are compared as pairs of integers of any size', () => {
  assert.ok(compareIds('1-9', '1-10') < 0)
  assert.ok(compareIds('2-1', '1-999') > 0)
  assert.ok(compareIds('1-9007199254740993', '1-9007199254740992') > 0)
  assert.equal(compareIds('1-2', '1-2'), 0)
})

test('members that the server left out have their default', () => {
  assert.deepEqual(readEvent({ type: 'token' }, '1-2'), { type: 'token', text: '', id: '1-2' })
  assert.equal(readEvent({ type: 'token' }, 'no id'), undefined)
  assert.equal(readEvent(null, '1-2'), undefined)
})

test('an event that comes again changes nothing', () => {
  const reading = new Reading()
  assert.ok(reading.accept(token('1-2', 'a')))
  assert.ok(!reading.accept(token('1-2', 'a')))
  assert.ok(!reading.accept(token('1-1', 'z')))
  assert.ok(reading.accept(token('2-3', 'b')))
  assert.equal(reading.text, 'ab')
  assert.equal(reading.cursor, '2-3')
})

test('a reset in the log begins the text anew', () => {
  const reading = new Reading()
  reading.accept(token('1-2', 'a'))
  reading.accept({ type: 'reset', id: '2-4', reason: 'restarted' })
  reading.accept(token('2-5', 'b'))
  assert.equal(reading.text, 'b')
})

test('after a reset with the id 0-0 the ids begin again', () => {
  const reading = new Reading('1-40')
  assert.ok(!reading.isWhole)
  assert.ok(reading.accept({ type: 'reset', id: '0-0', reason: 'log_rewritten' }))
  assert.ok(reading.isWhole)
  assert.ok(reading.accept(token('1-2', 'a')))
  assert.equal(reading.text, 'a')
})

test('the end with the id 0-0 of a lost generation is an end', () => {
  const reading = new Reading()
  reading.accept(token('1-2', 'a'))
  assert.ok(reading.accept({ type: 'end', id: '0-0', status: 'failed', finish_reason: 'error' }))
  assert.ok(reading.isDone)
  assert.ok(!reading.accept(token('1-3', 'b')))
})

test('the pieces of parallel tool calls are joined by id, and by index where there is none', () => {
  const reading = new Reading()
  const piece = (id, members) => reading.accept({ type: 'tool_call', id, call_id: '', name: '', arguments: '', ...members })
  piece('1-1', { index: 0, call_id: 'a', name: 'f', arguments: '{' })
  piece('1-2', { index: 1, call_id: 'b', name: 'g', arguments: '[' })
  piece('1-3', { index: 0, arguments: '}' })
  piece('1-4', { index: 1, arguments: ']' })
  assert.deepEqual(reading.toolCalls.map((call) => [call.call_id, call.name, call.arguments]), [['a', 'f', '{}'], ['b', 'g', '[]']])
})

test('the ceiling of the pauses doubles, and falls back only after an event', () => {
  const backOff = new BackOff(() => 1)
  assert.deepEqual([0, 0, 0, 0].map((now) => backOff.next(now)), [750, 1500, 3000, 5000])
  backOff.alive()
  assert.equal(backOff.next(0), 5000)
  backOff.progress()
  assert.equal(backOff.next(0), 750)
})

test('a long outage has longer pauses, up to the limit', () => {
  const backOff = new BackOff(() => 1)
  backOff.next(0)
  for (let n = 0; n < 5; n += 1) backOff.next(1_000)
  assert.equal(backOff.next(12_000), 12_000)
  assert.equal(backOff.next(100_000), 30_000)
})

test('an hour of sleep is no outage of an hour', () => {
  const backOff = new BackOff(() => 0.5)
  const found = [0, 5_000, 3_605_000, 10_000, 15_000].map((now) => backOff.outageMs(now))
  assert.deepEqual(found, [0, 5_000, 5_000, 5_000, 10_000])
  backOff.alive()
  assert.equal(backOff.outageMs(20_000), 0)
})

test('any pauses allow two tries in an outage of four seconds, and end eight seconds after it', () => {
  for (const jitter of [0, 0.3, 0.7, 0.999]) {
    const backOff = new BackOff(() => jitter)
    let now = 0
    const tries = []
    // Each refused try takes 50 ms, so that pauses of 0 do not loop for ever.
    while (now < 4_000) tries.push((now += backOff.next(now) + 50))
    assert.ok(tries.length >= 2)
    assert.ok(now <= 12_000)
  }
})

test('a random pause makes at most twenty tries in four seconds', () => {
  let seed = 1
  const random = () => (seed = (seed * 16_807) % 2_147_483_647) / 2_147_483_647
  for (let round = 0; round < 500; round += 1) {
    const backOff = new BackOff(random)
    let tries = 0
    for (let now = 0; now < 4_000; now += backOff.next(now)) tries += 1
    assert.ok(tries <= 20, `${tries} tries`)
  }
})

test('the server may ask for a longer pause, within a limit', () => {
  const backOff = new BackOff(() => 0)
  assert.equal(backOff.next(0, 3), 3_000)
  assert.equal(backOff.next(0, 1e9), 60_000)
})

test('a connection is dead after two heartbeats and a second', () => {
  const watchdog = new Watchdog(0)
  watchdog.heard(0, '2')
  assert.ok(!watchdog.isDead(5_000))
  assert.ok(watchdog.isDead(5_001))
  watchdog.heard(5_001)
  assert.ok(!watchdog.isDead(9_000))
})

test('a heartbeat that makes no sense keeps the interval', () => {
  const watchdog = new Watchdog(0)
  for (const odd of ['', 'soon', 0, -1, NaN, null, undefined]) watchdog.heard(0, odd)
  assert.equal(watchdog.heartbeatMs, 15_000)
})

test('after a sleep of an hour the connection is dead at once', () => {
  const watchdog = new Watchdog(0)
  assert.ok(watchdog.isDead(3_600_000))
})

test('a clock that is set back does not hide a dead connection', () => {
  const watchdog = new Watchdog(3_600_000)
  assert.ok(!watchdog.isDead(0))
  assert.ok(watchdog.isDead(31_001))
})

test('a blocked transport is left, and the first one is tried again when all have failed', () => {
  const picker = new Picker(AUTO)
  assert.equal(picker.pick(0), 'websocket')
  picker.leave('websocket', 0)
  assert.equal(picker.pick(1), 'sse')
  picker.leave('sse', 1)
  assert.equal(picker.pick(2), 'poll')
  picker.leave('poll', 2)
  assert.equal(picker.pick(3), 'websocket')
  picker.leave('websocket', 3)
  assert.equal(picker.pick(3 + LEFT_FOR_MS), 'websocket')
})

test('a tab at an event of a log joins it, and a tab between two events does not', () => {
  const events = [token('1-1', 'a'), token('1-4', 'bcd'), token('1-5', 'e')]
  const log = { origin: '0-0', events }
  assert.deepEqual(rest(log, '0-0'), events)
  assert.deepEqual(rest(log, '1-4'), events.slice(2))
  assert.deepEqual(rest(log, '1-5'), [])
  // 1-4 stands for three tokens: a tab that has seen 1-2 would get one of them twice.
  assert.equal(rest(log, '1-2'), undefined)
})
