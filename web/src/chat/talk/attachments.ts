/** Files that go with a prompt: pictures and texts for the model, and all but pictures also into the file store. */

import type { PageClient } from '../client.js'
import { FILE_MARK, type PageFile } from './turn.js'

/** Bytes. A request may have 32 MiB by default, and base64 adds a third. */
const PICTURE_BYTES_MAX = 8 * 2 ** 20
const TEXT_BYTES_MAX = 512 * 2 ** 10
const FILES_MAX = 10
const PICTURES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp']
const TEXT = /^(text\/|application\/(json|xml|yaml|x-yaml|toml|javascript|x-sh|sql))|\+(json|xml)$/
const TEXT_NAMES = /\.(txt|md|csv|tsv|log|py|js|ts|tsx|jsx|json|toml|ya?ml|ini|cfg|sh|sql|c|h|cc|cpp|rs|go|java|rb|php|html|css|xml|tex|diff|patch)$/i

export interface Attachment { file: File; part: unknown; stored?: PageFile }

export class Refused extends Error {}

/** Returns what the model gets, and stores the file. Throws Refused with a sentence for the user. */
export async function attach(client: PageClient, file: File, count: number): Promise<Attachment> {
  if (count >= FILES_MAX) throw new Refused(`A prompt takes at most ${FILES_MAX} files.`)
  if (PICTURES.includes(file.type)) {
    if (file.size > PICTURE_BYTES_MAX) throw new Refused(`${file.name}: a picture may have 8 MiB. Make it smaller.`)
    return { file, part: { type: 'image_url', image_url: { url: await dataUrl(file) } } }
  }
  if (TEXT.test(file.type) || TEXT_NAMES.test(file.name)) {
    if (file.size > TEXT_BYTES_MAX) throw new Refused(`${file.name}: the text of a file may have 512 KiB. Attach a part of it.`)
    const text = await file.text()
    return { file, part: { type: 'text', text: `${FILE_MARK}${file.name}:\n\n${text}` }, stored: await store(client, file) }
  }
  if (file.size > PICTURE_BYTES_MAX) throw new Refused(`${file.name}: a file may have 8 MiB.`)
  const part = { type: 'file', file: { filename: file.name, file_data: await dataUrl(file) } }
  return { file, part, stored: await store(client, file) }
}

/** In the file store a file can be downloaded from every device until it expires. */
async function store(client: PageClient, file: File): Promise<PageFile | undefined> {
  const form = new FormData()
  form.append('purpose', 'user_data')
  form.append('file', file)
  const response = await client.fetch('/v1/files', { method: 'POST', body: form })
  if (response.status === 403) return undefined // the key may not store files; the model gets it all the same
  const said = await response.json().catch(() => ({}))
  if (!response.ok) throw new Refused(`${file.name}: ${said.error?.message ?? `the server answered ${response.status}`}`)
  return { id: said.id, name: file.name, type: file.type, bytes: file.size }
}

function dataUrl(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader()
    reader.onload = () => resolve(String(reader.result))
    reader.onerror = () => reject(new Refused(`${file.name} cannot be read.`))
    reader.readAsDataURL(file)
  })
}
