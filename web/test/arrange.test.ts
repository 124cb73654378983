// @ts-nocheck: Node's own modules have no types here.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { arrange } from '../src/chat/talk/arrange.ts'

const link = (id, after = '', replaces = '') => ({ id, after, replaces, created_at: 0 })
const shown = (links, chosen) => arrange(links, new Map(chosen)).map(({ id }) => id)

test('answers without a note follow each other', () => {
  assert.deepEqual(shown([link('a'), link('b'), link('c')]), ['a', 'b', 'c'])
})

test('two prompts that were sent at once follow each other', () => {
  assert.deepEqual(shown([link('a'), link('b', 'a'), link('c', 'a')]), ['a', 'b', 'c'])
})

test('an edited prompt takes the place, and hides what followed the old one', () => {
  const links = [link('a'), link('b', 'a'), link('A', '', 'a')]
  assert.deepEqual(shown(links), ['A'])
  assert.deepEqual(arrange(links)[0].versions, ['a', 'A'])
})

test('the reader can go back to an older version and what followed it', () => {
  assert.deepEqual(shown([link('a'), link('b', 'a'), link('A', '', 'a')], [['a', 'a']]), ['a', 'b'])
})

test('a conversation that went on in an older version is shown there', () => {
  assert.deepEqual(shown([link('a'), link('A', '', 'a'), link('b', 'a')]), ['a', 'b'])
})

test('a version of a version is a version of the first', () => {
  const links = [link('a'), link('b', 'a'), link('B', 'a', 'b'), link('BB', 'a', 'B')]
  assert.deepEqual(shown(links), ['a', 'BB'])
  assert.deepEqual(arrange(links)[1].versions, ['b', 'B', 'BB'])
})

test('a note about an answer that is gone does not hide the answer', () => {
  assert.deepEqual(shown([link('a'), link('b', 'gone', 'gone too')]), ['a', 'b'])
})

test('answers that name themselves or each other are all shown', () => {
  const found = arrange([link('a', 'a', 'a'), link('b', 'c', 'c'), link('c', 'b')])
  assert.deepEqual([...new Set(found.flatMap(({ versions }) => versions))].sort(), ['a', 'b', 'c'])
})

test('prompts of the same second stand in the order that they name', () => {
  assert.deepEqual(shown([link('c', 'b'), link('b', 'a'), link('a')]), ['a', 'b', 'c'])
  assert.deepEqual(shown([link('B', 'a', 'b'), link('b', 'a'), link('a')]), ['a', 'B'])
})

test('a conversation may have thousands of answers', () => {
  const links = Array.from({ length: 5_000 }, (_, at) => link(`n${at}`, at ? `n${at - 1}` : ''))
  assert.equal(arrange(links.reverse()).length, 5_000)
})
