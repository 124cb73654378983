/**
 * The key or token of this page. It lives as long as the tab (sessionStorage), and in no other place. A new tab
 * asks the other tabs of this browser, which answer over a BroadcastChannel, before it asks the user.
 */

import { ofTab, openChannel, randomName } from './memory.js'

const NAME = 'tailrace.key'
/** How long a tab waits for the key of another tab, ms. */
const OTHERS_MS = 250

type Said = { ask: string } | { answer: string; key: string } | { entered: string } | { signedOut: true }

export class Keys {
  private readonly channel = openChannel('tailrace.key')
  private readonly me = randomName()
  private asking: Promise<string> | null = null
  private answered: ((key: string) => void) | null = null
  /** Called when another tab has a key, while this tab's dialog is open. */
  private entered: ((key: string) => void) | null = null

  /** `ask` opens the dialog; `signal` closes it without an answer. `changed` follows each change of the key. */
  constructor(
    private readonly ask: (problem: string, signal: AbortSignal) => Promise<string>,
    private readonly changed: (key: string) => void,
  ) {
    this.channel?.addEventListener('message', ({ data }: MessageEvent<Said>) => this.heard(data))
  }

  get current(): string {
    return ofTab.get(NAME)
  }

  /** `isFresh`: the server has refused the current key. */
  async token(isFresh: boolean): Promise<string> {
    if (!isFresh) return this.current
    this.asking ??= this.another(this.current).finally(() => { this.asking = null })
    return this.asking
  }

  signOut(): void {
    this.set('')
    this.say({ signedOut: true })
  }

  private async another(refused: string): Promise<string> {
    const others = await this.askOthers()
    if (others && others !== refused) return this.set(others)
    const stopper = new AbortController()
    const problem = refused ? 'The server does not accept this key (any more).' : ''
    const shared = new Promise<string>((resolve) => { this.entered = resolve })
    const key = await Promise.race([this.ask(problem, stopper.signal), shared])
    this.entered = null
    stopper.abort()
    this.set(key)
    this.say({ entered: key })
    return key
  }

  private askOthers(): Promise<string> {
    if (!this.channel) return Promise.resolve('')
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(''), OTHERS_MS)
      this.answered = (key) => {
        clearTimeout(timer)
        resolve(key)
      }
      this.say({ ask: this.me })
    })
  }

  private heard(said: Said): void {
    if ('ask' in said && this.current) this.say({ answer: said.ask, key: this.current })
    else if ('answer' in said && said.answer === this.me) this.answered?.(said.key)
    else if ('entered' in said) this.entered?.(said.entered)
    else if ('signedOut' in said && this.current) this.set('')
  }

  private set(key: string): string {
    ofTab.set(NAME, key)
    this.changed(key)
    return key
  }

  private say(said: Said): void {
    this.channel?.postMessage(said)
  }
}

/** A name for what this browser keeps of the owner behind a key. It does not reveal the key. */
export function ownerTag(key: string): string {
  if (!key) return 'anonymous'
  try {
    const claims = JSON.parse(atob(key.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')))
    if (claims.sub) return `sub ${claims.iss ?? ''} ${claims.sub}`
  } catch {
    // not a token
  }
  let hash = 2166136261
  for (let at = 0; at < key.length; at += 1) hash = Math.imul(hash ^ key.charCodeAt(at), 16777619)
  return `key ${(hash >>> 0).toString(16)}`
}
