/** One call: what it does, its parameters and members, its answers, and the form that sends it. */

import { copy, h } from '../chat/view/dom.js'
import { curl, send, type Filled } from './request.js'
import { members, resolved, sample, type Named, type Schema } from './schema.js'

export interface Parameter { name: string; in: string; description?: string; required?: boolean; schema?: Schema; example?: unknown }
export interface Operation {
  operationId: string
  summary: string
  tags?: string[]
  parameters?: Parameter[]
  requestBody?: { content: Record<string, { schema: Schema; example?: unknown }> }
  responses: Record<string, { description: string; content?: Record<string, { schema?: Schema; example?: unknown }> }>
}

const JSON_TYPE = 'application/json'
const FORM_TYPE = 'multipart/form-data'
const STREAM_TYPES = ['text/event-stream', 'application/x-ndjson']
/** The id that the last answer named: the calls below begin with it. */
const latest = { id: '' }
/** Of an answer; a longer one is cut here. */
const SHOWN_CHARACTERS_MAX = 200_000

export function describe(method: string, path: string, operation: Operation, named: Named, key: () => string): HTMLElement {
  const id = operation.operationId
  const section = h('section', {})
  const details = h('details', { id, class: 'call' },
    h('summary', {}, h('b', { class: method }, method.toUpperCase()), h('code', {}, path),
      h('span', {}, operation.summary)), section)
  // The forms are made when a call is opened: sixty of them at once would slow the page down.
  details.addEventListener('toggle', () => {
    if (details.open && !section.hasChildNodes()) section.append(...inside(method, path, operation, named, key))
  })
  return details
}

function inside(method: string, path: string, operation: Operation, named: Named, key: () => string): HTMLElement[] {
  const parts = [tryIt(method, path, operation, named, key)]
  const body = operation.requestBody?.content ?? {}
  for (const [type, { schema }] of Object.entries(body)) {
    parts.push(h('h4', {}, 'Body ', h('small', {}, type)), members(schema, named) ?? h('p', {}, 'Any JSON.'))
  }
  parts.push(...answers(operation, named))
  return parts
}

function answers(operation: Operation, named: Named): HTMLElement[] {
  const rows = Object.entries(operation.responses).sort().map(([status, { description, content }]) => {
    const kinds = Object.entries(content ?? {})
    const shapes = kinds.flatMap(([type, { schema, example }]) => {
      const inner = schema && members(schema, named)
      const shown = example ?? (schema && type === JSON_TYPE ? sample(schema, named) : undefined)
      return [
        h('div', { class: 'quiet' }, type),
        ...(inner ? [inner] : []),
        ...(shown === undefined || status >= '400' ? [] : [h('pre', {}, text(shown))]),
      ]
    })
    const head = [h('b', {}, status), ' ', description]
    return h('li', {}, shapes.length ? h('details', {}, h('summary', {}, ...head), ...shapes) : h('div', {}, ...head))
  })
  return [h('h4', {}, 'Answers'), h('ul', { class: 'answers' }, ...rows)]
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value, null, 2)
}

function tryIt(method: string, path: string, operation: Operation, named: Named, key: () => string): HTMLElement {
  const inputs = new Map<Parameter, HTMLInputElement>()
  const rows = (operation.parameters ?? []).map((parameter) => {
    const example = parameter.example ?? (parameter.name === 'id' ? latest.id : '')
    const input = h('input', { name: parameter.name, value: String(example), autocomplete: 'off' })
    inputs.set(parameter, input)
    return h('label', { class: 'field' }, h('code', {}, parameter.name), h('span', { class: 'quiet' }, parameter.in),
      input, h('span', { class: 'about' }, parameter.description ?? ''))
  })
  const content = operation.requestBody?.content ?? {}
  const json = content[JSON_TYPE]
  const example = json && text(json.example ?? sample(json.schema, named))
  const rowsShown = Math.min(16, (example ?? '').split('\n').length + 1)
  const area = json && h('textarea', { rows: rowsShown, spellcheck: 'false', 'aria-label': 'Body' }, example ?? '')
  const form = json ? undefined : content[FORM_TYPE]
  const fields = new Map<string, HTMLInputElement>()
  for (const [name, schema] of Object.entries(form ? resolved(form.schema, named).properties ?? {} : {})) {
    const isFile = name === 'file'
    fields.set(name, h('input', { name, type: isFile ? 'file' : 'text', value: isFile ? false : String(sample(schema, named)) }))
  }
  const types = [...new Set(Object.values(operation.responses).flatMap((each) => Object.keys(each.content ?? {})))]
  const accept = h('select', { 'aria-label': 'Accept' }, ...types.map((type) => h('option', {}, type)))
  const command = h('pre', { class: 'curl' })
  const output = h('pre', { class: 'output', hidden: true, tabindex: '0' })
  const status = h('p', { class: 'status', role: 'status' })
  let stopper: AbortController | null = null

  const filled = (): Filled => {
    const headers: Record<string, string> = {}
    const query: Record<string, string> = {}
    let where = path
    for (const [parameter, { value }] of inputs) {
      if (parameter.in === 'path') where = where.replace(`{${parameter.name}}`, encodeURIComponent(value || parameter.name))
      else if (parameter.in === 'query') query[parameter.name] = value
      else if (value) headers[parameter.name.toLowerCase()] = value
    }
    if (types.length > 1 || STREAM_TYPES.includes(accept.value)) headers.accept = accept.value
    if (area) headers['content-type'] = JSON_TYPE
    if (key()) headers.authorization = `Bearer ${key()}`
    const parts = [...fields].map(([name, input]) => [name, input.files ? input.files[0] ?? new File([], '') : input.value])
    return { method: method.toUpperCase(), path: where, query, headers, body: area?.value ?? '', form: Object.fromEntries(parts) }
  }
  const show = () => { command.textContent = curl(filled()) }
  const button = h('button', { type: 'submit', class: 'send' }, 'Send')
  const stop = h('button', { type: 'button', hidden: true, onclick: () => stopper?.abort() }, 'Stop')
  const copied = h('button', { type: 'button', onclick: () => void copy(command.textContent ?? '') }, 'Copy')
  const box = h('form', { class: 'try' },
    h('h4', {}, 'Try it'), ...rows,
    ...[...fields].map(([name, input]) => h('label', { class: 'field' }, h('code', {}, name), h('span', { class: 'quiet' }, 'form'), input)),
    ...(area ? [area] : []),
    h('div', { class: 'line' }, ...(types.length > 1 ? [accept] : []), button, stop),
    h('div', { class: 'line' }, h('span', { class: 'quiet' }, 'as a command'), copied), command, status, output)
  box.addEventListener('input', show)
  box.addEventListener('submit', (event) => {
    event.preventDefault()
    stopper?.abort()
    stopper = new AbortController()
    stop.hidden = false
    void run(filled(), stopper.signal, status, output).finally(() => { stop.hidden = true })
  })
  show()
  return box
}

/** Send the request and show the answer while it arrives. */
async function run(filled: Filled, signal: AbortSignal, status: HTMLElement, output: HTMLElement): Promise<void> {
  output.hidden = true
  output.textContent = ''
  status.textContent = 'sent …'
  const began = performance.now()
  try {
    const response = await send(filled, signal)
    const id = response.headers.get('x-generation-id')
    status.textContent = `${response.status} ${response.statusText}, ${Math.round(performance.now() - began)} ms${id ? `, ${id}` : ''}`
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
    let whole = ''
    for (;;) {
      const { done, value } = (await reader?.read()) ?? { done: true, value: '' }
      if (done) break
      whole += value
      output.hidden = false
      output.append(value)
      if (whole.length > SHOWN_CHARACTERS_MAX) {
        output.append('\n… (the rest is not shown)')
        await reader?.cancel()
        break
      }
    }
    const isJson = response.headers.get('content-type')?.startsWith(JSON_TYPE) === true
    if (isJson) output.textContent = pretty(whole)
    if (response.ok && filled.method === 'POST') offer(id ?? (isJson ? idIn(whole) : ''))
  } catch (error) {
    status.textContent = signal.aborted ? 'stopped' : `no answer: ${(error as Error).message}`
  }
}

/** Put the id of what was made into the empty fields of the other calls. */
function offer(id: string): void {
  if (!id) return
  latest.id = id
  for (const input of document.querySelectorAll<HTMLInputElement>('.field input[name=id]')) {
    if (input.value) continue
    input.value = id
    input.dispatchEvent(new Event('input', { bubbles: true }))
  }
}

function idIn(json: string): string {
  try {
    return String((JSON.parse(json) as { id?: string }).id ?? '')
  } catch {
    return ''
  }
}

function pretty(json: string): string {
  try {
    return JSON.stringify(JSON.parse(json), null, 2)
  } catch {
    return json
  }
}
