// @ts-nocheck: Node's own modules have no types here.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { blocksOf } from '../src/chat/markdown/parser.ts'

const html = (source) => blocksOf(source, {}).map((block) => block.html).join('')

test('money is no formula, and a formula is', () => {
  assert.doesNotMatch(html('It costs $5 or $6 and US$ 7.'), /math/)
  assert.match(html('So $x + 1$ it is, and \\(y\\).'), /data-tex="x \+ 1".*data-tex="y"/)
})

test('blocks of formulas keep their lines', () => {
  assert.equal(html('$$\na\nb\n$$'), '<span class="math math-block" data-tex="a\nb">a\nb</span>')
  assert.match(html('\\[ a \\]'), /math-block/)
  assert.doesNotMatch(html('$$ not closed'), /math/)
})

test('HTML stays text', () => {
  assert.equal(html('<b>x</b>'), '<p>&lt;b&gt;x&lt;/b&gt;</p>')
})

test('a picture of another host is a link, and a picture in the text is a picture', () => {
  assert.equal(html('![a](https://example.org/x.png)'), '<p><a href="https://example.org/x.png">a</a></p>')
  assert.match(html('![a](data:image/png;base64,AA==)'), /<img src="data:image\/png;base64,AA==" alt="a">/)
})

test('blocks say where they stand', () => {
  const source = 'one\n\n- two\n- three\n\n```\nfour\n```\n'
  assert.deepEqual(blocksOf(source, {}).map(({ from, to }) => [from, to]), [[0, 1], [2, 5], [5, 8]])
})

test('a long line does not take long', () => {
  const began = performance.now()
  for (const part of ['$', '[', '*a', '`', '\\(', '![](', '| a ', '> ']) html(part.repeat(5_000))
  assert.ok(performance.now() - began < 20_000, 'a pattern needs quadratic time')
})
