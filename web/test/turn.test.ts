// @ts-nocheck: Node's own modules have no types here.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { historyOf } from '../src/chat/talk/history.ts'
import { noteOf, picturesOf, textOf, Turn } from '../src/chat/talk/turn.ts'

const made = (prompt = 'why', ...events) => {
  const turn = new Turn({ id: 'gen_1', prompt, created_at: 0 })
  turn.isLoaded = true
  events.forEach((event, at) => turn.take({ id: `1-${at + 1}`, ...event }, 1000 + at))
  return turn
}
const end = { type: 'end', status: 'completed', finish_reason: 'stop' }

test('tokens join to the text, and reasoning has its time', () => {
  const turn = made('why', { type: 'start', attempt: 1, model: 'm' }, { type: 'reasoning', text: 'hm' },
    { type: 'reasoning', text: '!' }, { type: 'token', text: 'be' }, { type: 'token', text: 'cause' }, end)
  assert.equal(turn.text, 'because')
  assert.equal(turn.reasoning, 'hm!')
  assert.equal(turn.reasonedTo - turn.reasonedFrom, 2)
  assert.equal(turn.cursor, '1-6')
  assert.equal(turn.isActive, false)
})

test('progress is shown until the text comes', () => {
  const turn = made('why', { type: 'progress', stage: 'load', current: 1, total: 4, percentage: 25 })
  assert.deepEqual(turn.progress, [{ agent: '', stage: 'load', percentage: 25 }])
  turn.take({ id: '1-2', type: 'token', text: 'x' }, 0)
  assert.deepEqual(turn.progress, [])
})

test('each agent has its own progress, and a name of data its last value', () => {
  const step = (agent, percentage) => ({ type: 'progress', agent, stage: 'read', current: 0, total: 0, percentage })
  const turn = made('why', step('a', 10), step('b', 20), step('a', 30), { type: 'data', name: 'n', value: 1 },
    { type: 'data', name: 'n', value: 2 })
  assert.deepEqual(turn.progress.map(({ agent, percentage }) => [agent, percentage]), [['b', 20], ['a', 30]])
  assert.deepEqual(turn.data, [{ name: 'n', value: 2 }])
})

test('a reset makes everything before it void', () => {
  const turn = made('why', { type: 'token', text: 'old' }, { type: 'reasoning', text: 'old' },
    { type: 'file', name: 'a', media_type: 'image/png', data: '' },
    { type: 'tool_call', index: 0, call_id: 'c', name: 'f', arguments: '{}' },
    { type: 'reset', reason: 'restarted' }, { type: 'token', text: 'new' })
  assert.equal(turn.text, 'new')
  assert.deepEqual([turn.reasoning, turn.files, turn.calls, turn.resets], ['', [], [], 1])
})

test('the pieces of a tool call join', () => {
  const turn = made('why', { type: 'tool_call', index: 0, call_id: 'c', name: 'f', arguments: '{"a"' },
    { type: 'tool_call', index: 0, call_id: '', name: '', arguments: ': 1}' },
    { type: 'tool_call', index: 0, call_id: 'd', name: 'g', arguments: '' })
  assert.deepEqual(turn.calls.map(({ name, arguments: given }) => [name, given]), [['f', '{"a": 1}'], ['g', '']])
})

test('a picture in the extra of an event is a file', () => {
  const url = 'data:image/png;base64,AA=='
  const turn = made('why', { type: 'extra', extra: { delta: { images: [{ image_url: { url } }] } } })
  assert.deepEqual(turn.files.map((file) => file.url), [url])
})

test('an end says what its reader needs to know', () => {
  const failed = { type: 'end', status: 'failed', finish_reason: 'error', error: { code: 'upstream_error', message: 'It broke.' } }
  assert.deepEqual(noteOf(made('why', failed)), { text: 'It broke. (upstream_error)', isProblem: true })
  assert.match(noteOf(made('why', { ...end, finish_reason: 'length' })).text, /length limit/)
  assert.equal(noteOf(made('why', end)).text, '')
})

test('a prompt with files keeps its words, its pictures, and the text of a file apart', () => {
  const url = 'data:image/png;base64,AA=='
  const content = [{ type: 'text', text: 'What?' }, { type: 'image_url', image_url: { url } },
    { type: 'text', text: 'Attached file a.txt:\n\nlong' }]
  assert.equal(textOf(content), 'What?')
  assert.deepEqual(picturesOf(content), [url])
})

test('the history has prompts, answers and signed thoughts, and leaves failures without text out', () => {
  const thought = { type: 'reasoning.text', text: 't', signature: 's' }
  const good = made('one', { type: 'token', text: 'first', extra: { delta: { reasoning_details: [thought] } } }, end)
  const bad = made('two', { ...end, status: 'failed' })
  assert.deepEqual(historyOf([good, bad]), [
    { role: 'user', content: 'one' }, { role: 'assistant', content: 'first', reasoning_details: [thought] }])
})

test('a history has no holes', () => {
  const [one, two, three] = ['one', 'two', 'three'].map((prompt) => made(prompt, { type: 'token', text: 'x' }, end))
  two.isLoaded = false
  assert.deepEqual(historyOf([one, two, three]).map(({ content }) => content), ['three', 'x'])
})

test('a long history keeps its newest part', () => {
  const long = made('old', { type: 'token', text: 'x'.repeat(2_000_001) }, end)
  const short = made('new', { type: 'token', text: 'y' }, end)
  assert.deepEqual(historyOf([long, short]).map(({ content }) => content), ['new', 'y'])
})

test('a listing that is older than the end does not make the answer run again', () => {
  const turn = made('why', { type: 'token', text: 'x' }, end)
  turn.isLoaded = true
  const row = { id: turn.id, model: 'm', prompt: 'why', session: null, created_at: 1, metadata: {}, error: null }
  turn.list({ ...row, status: 'running' })
  assert.equal(turn.status, 'completed')
})

test('a recording goes along as the words of its transcript', () => {
  const recording = made('', { type: 'token', text: 'what I said' }, end)
  recording.metadata = { page: { recording: true } }
  const next = made('and?', { type: 'token', text: 'y' }, end)
  assert.deepEqual(historyOf([recording, next]).map(({ role, content }) => [role, content]),
    [['user', 'what I said'], ['user', 'and?'], ['assistant', 'y']])
})
