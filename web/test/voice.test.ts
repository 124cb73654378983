// @ts-nocheck: Node's own modules have no types here.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TailraceError } from 'tailrace'
import { outageReason } from '../src/chat/voice/reasons.ts'

const ended = (status) => new TailraceError('generation_ended', 'ended', { retryable: false, members: { status } })

test('an outage that outlasts the patience of the server is told, with what to do', () => {
  assert.match(outageReason(ended('failed'), 300), /lost for longer than the server waits.*Press Record/)
})

test('other ends of the answer are told by the transcript alone', () => {
  assert.equal(outageReason(ended('failed'), Infinity), undefined)
  assert.equal(outageReason(ended('cancelled'), 300), undefined)
  assert.equal(outageReason(new TailraceError('gave_up', 'no', { retryable: true }), 300), undefined)
})
