// @ts-nocheck: Node's own modules have no types here.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Counts } from '../src/chat/break/counts.ts'
import { sample } from '../src/docs/schema.ts'
import { curl } from '../src/docs/request.ts'

/** Note events given as `id type text`; the type is `token` and the text `x` by default. */
function counted(...events) {
  const counts = new Counts()
  events.forEach((each, at) => {
    const [id, type = 'token', text = 'x'] = each.split(' ')
    counts.note({ id, type, text }, 100 * at)
  })
  const { received, lost, repeated, disordered } = counts
  return { counts, numbers: [received, lost, repeated, disordered] }
}

test('a whole answer has lost nothing', () => {
  const { counts, numbers } = counted('1-1 start', '1-2', '1-3', '2-4 start', '2-5', '2-6 end')
  assert.deepEqual(numbers, [6, 0, 0, 0])
  assert.equal(counts.text, 'xxx')
  assert.equal(counts.attempt, 2)
})

test('joined tokens of one attempt are no loss', () => {
  assert.deepEqual(counted('1-1 start', '1-9 token many', '1-10').numbers, [3, 0, 0, 0])
})

test('a hole before another event is a loss', () => {
  assert.deepEqual(counted('1-1 start', '1-2', '1-5 end').numbers, [3, 2, 0, 0])
  assert.deepEqual(counted('1-1 start', '1-2', '2-5 start').numbers, [3, 2, 0, 0])
  assert.deepEqual(counted('1-3 start').numbers, [1, 2, 0, 0])
})

test('an event that comes twice is repeated, and its text counts once', () => {
  const { counts, numbers } = counted('1-1 start', '1-2', '1-2', '1-1 start')
  assert.deepEqual(numbers, [4, 0, 2, 0])
  assert.equal(counts.text, 'x')
})

test('an event that comes late is out of order and no longer lost', () => {
  assert.deepEqual(counted('1-1 start', '1-2', '1-4 usage', '1-3 usage').numbers, [4, 0, 0, 1])
})

test('an attempt that falls is out of order', () => {
  assert.deepEqual(counted('2-1 start', '1-2').numbers, [2, 0, 0, 1])
})

test('an id that cannot be read is out of order', () => {
  assert.deepEqual(counted('x').numbers, [1, 0, 0, 1])
})

test('after a reset of the whole log everything comes again', () => {
  const { counts, numbers } = counted('1-1 start', '1-2', '0-0 reset', '1-1 start', '1-2')
  assert.deepEqual(numbers, [5, 0, 0, 0])
  assert.equal(counts.text, 'x')
})

test('a reset of one attempt makes the text void', () => {
  assert.equal(counted('1-1 start', '1-2', '2-3 start', '2-4 reset', '2-5 token new').counts.text, 'new')
})

test('after a reload the count goes on behind the cursor', () => {
  const counts = new Counts()
  counts.adopt('1-7', 'Hello')
  counts.note({ id: '1-8', type: 'token', text: '!' }, 0)
  counts.note({ id: '1-7', type: 'token', text: 'o' }, 0)
  assert.deepEqual([counts.lost, counts.repeated, counts.text], [0, 1, 'Hello!'])
})

test('the longest wait is the longest time between two events', () => {
  const counts = new Counts()
  for (const ms of [0, 100, 900, 1000]) counts.note({ id: `1-${1 + ms}`, type: 'token', text: '' }, ms)
  assert.equal(counts.longestWait, 800)
})

test('a sample of a schema has what is required, and follows references', () => {
  const named = { Id: { type: 'string', examples: ['gen_1'] } }
  const schema = {
    type: 'object', required: ['id', 'count', 'kind'],
    properties: { id: { $ref: '#/components/schemas/Id' }, count: { type: 'integer', minimum: 2 }, kind: { enum: ['a'] }, more: {} },
  }
  assert.deepEqual(sample(schema, named), { id: 'gen_1', count: 2, kind: 'a' })
})

test('a command can be pasted, whatever stands in the body, and has no key', () => {
  globalThis.location = { origin: 'http://127.0.0.1:8000' }
  const command = curl({
    method: 'POST', path: '/v1/generations', query: { after: 'a b' }, form: {},
    headers: { authorization: 'Bearer secret' }, body: `{"prompt": "it's $HOME"}`,
  })
  assert.equal(command, [
    `curl -N -X POST 'http://127.0.0.1:8000/v1/generations?after=a+b'`,
    `-H "authorization: Bearer $TAILRACE_KEY"`,
    `-d '{"prompt": "it'\\''s $HOME"}'`,
  ].join(' \\\n  '))
})
