/** One request of the page: its URL, headers and body from the fields, as curl and as a call of this browser. */

export interface Filled {
  method: string
  path: string
  query: Record<string, string>
  headers: Record<string, string>
  /** JSON text; a file goes into `files`. */
  body: string
  form: Record<string, string | File>
}

export function urlOf({ path, query }: Filled): string {
  const given = Object.entries(query).filter(([, value]) => value !== '')
  return path + (given.length ? `?${new URLSearchParams(given)}` : '')
}

/** The command for a shell; each word is quoted, so that it can be pasted. */
export function curl(filled: Filled): string {
  const words = [`curl -N${filled.method === 'GET' ? '' : ` -X ${filled.method}`} ${quoted(location.origin + urlOf(filled))}`]
  for (const [name, value] of Object.entries(filled.headers)) {
    // The key stays out of the command, which lands in a shell's history.
    words.push(`-H ${name === 'authorization' ? '"authorization: Bearer $TAILRACE_KEY"' : quoted(`${name}: ${value}`)}`)
  }
  if (filled.body) words.push(`-d ${quoted(filled.body)}`)
  for (const [name, value] of Object.entries(filled.form)) {
    words.push(`-F ${quoted(`${name}=${typeof value === 'string' ? value : `@${value.name || 'requests.jsonl'}`}`)}`)
  }
  return words.join(' \\\n  ')
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}

export async function send(filled: Filled, signal: AbortSignal): Promise<Response> {
  let body: BodyInit | undefined = filled.body || undefined
  const form = Object.entries(filled.form)
  if (form.length) {
    const data = new FormData()
    for (const [name, value] of form) data.append(name, value)
    body = data
  }
  return fetch(urlOf(filled), { method: filled.method, headers: filled.headers, body, signal })
}
