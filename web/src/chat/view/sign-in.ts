/** The dialog that asks for a key or a token. */

import { byId } from './dom.js'

/** Resolves with what the user enters. `signal` closes the dialog: then the answer does not matter. */
export function askForKey(problem: string, signal: AbortSignal): Promise<string> {
  const dialog = byId<HTMLDialogElement>('ask-key')
  const field = byId<HTMLInputElement>('key')
  byId('key-problem').textContent = problem
  byId('key-problem').hidden = !problem
  field.value = ''
  dialog.oncancel = (event) => event.preventDefault() // without a key the page can do nothing
  dialog.showModal()
  return new Promise((resolve) => {
    signal.addEventListener('abort', () => dialog.close(), { once: true })
    dialog.addEventListener('close', () => {
      const key = field.value.trim()
      field.value = ''
      if (key) byId('prompt').focus()
      resolve(key)
    }, { once: true })
  })
}
