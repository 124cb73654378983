/** Shows a schema where it is used, with every reference replaced by what it names; and makes a sample of it. */

import { h } from '../chat/view/dom.js'

export interface Schema {
  $ref?: string
  type?: string | string[]
  description?: string
  properties?: Record<string, Schema>
  required?: string[]
  additionalProperties?: boolean | Schema
  items?: Schema
  anyOf?: Schema[]
  oneOf?: Schema[]
  enum?: unknown[]
  const?: unknown
  default?: unknown
  examples?: unknown[]
  [bound: string]: unknown
}

export type Named = Record<string, Schema>

/** A schema may name itself; deeper than this nothing is shown. */
const DEPTH_MAX = 8
const BOUNDS = [
  'minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'minLength', 'maxLength', 'minItems', 'maxItems',
  'pattern', 'format',
]

export function resolved(schema: Schema, named: Named): Schema {
  const name = schema.$ref?.split('/').at(-1)
  return name ? resolved(named[name] ?? {}, named) : schema
}

/** One line: the type, and the bounds. */
function kindOf(schema: Schema, named: Named): string {
  const found = resolved(schema, named)
  const choices = found.anyOf ?? found.oneOf
  if (found.const !== undefined) return JSON.stringify(found.const)
  if (found.enum) return found.enum.map((each) => JSON.stringify(each)).join(' or ')
  if (choices) return [...new Set(choices.map((each) => kindOf(each, named)))].join(' or ')
  const type = [found.type ?? 'any'].flat().join(' or ')
  const kind = type === 'array' && found.items ? `array of ${kindOf(found.items, named)}` : type
  const bounds = BOUNDS.filter((name) => found[name] !== undefined).map((name) => `${name} ${found[name]}`)
  return [kind, ...bounds].join(', ')
}

/** The members of a schema as a nested list; null: it has none. */
export function members(schema: Schema, named: Named, depth = 0): HTMLElement | null {
  const found = resolved(schema, named)
  if (depth > DEPTH_MAX) return null
  const choices = (found.anyOf ?? found.oneOf ?? []).map((each) => members(each, named, depth + 1))
  if (found.items) return members(found.items, named, depth + 1)
  const own = Object.entries(found.properties ?? {})
  if (own.length === 0) {
    const shown = choices.filter((each) => each !== null)
    if (shown.length < 2) return shown[0] ?? null
    return h('div', { class: 'choices' }, ...shown.flatMap((each, at) => [
      h('p', { class: 'quiet' }, at ? 'or' : 'either'), each,
    ]))
  }
  return h('ul', { class: 'members' }, ...own.map(([name, each]) => {
    const about = [each.description, resolved(each, named).description].find(Boolean)
    const inner = members(each, named, depth + 1)
    const head = [
      h('code', {}, name), ' ',
      h('span', { class: 'kind' }, kindOf(each, named)),
      ...(found.required?.includes(name) ? [' ', h('span', { class: 'needed' }, 'required')] : []),
      ...(about ? [h('div', { class: 'about' }, about)] : []),
    ]
    if (!inner) return h('li', {}, ...head)
    return h('li', {}, h('details', {}, h('summary', {}, ...head), inner))
  }))
}

/** A value that fits: the example, the default, or the plainest value. Members that are not required are left out. */
export function sample(schema: Schema, named: Named, depth = 0): unknown {
  const found = resolved(schema, named)
  if (found.const !== undefined) return found.const
  if (found.examples?.length) return found.examples[0]
  if (found.default !== undefined) return found.default
  if (found.enum) return found.enum[0]
  const choices = found.anyOf ?? found.oneOf
  if (choices && !found.properties) return sample(choices[0], named, depth + 1)
  const type = [found.type].flat()[0]
  if (type === 'object' || found.properties) {
    if (depth > DEPTH_MAX) return {}
    const required = found.required ?? []
    return Object.fromEntries(Object.entries(found.properties ?? {})
      .filter(([name]) => required.includes(name))
      .map(([name, each]) => [name, sample(each, named, depth + 1)]))
  }
  if (type === 'array') return found.items && depth < DEPTH_MAX ? [sample(found.items, named, depth + 1)] : []
  if (type === 'integer' || type === 'number') return found.minimum ?? 1
  if (type === 'boolean') return true
  return type === 'string' ? 'text' : null
}
