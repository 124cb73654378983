/**
 * Small values that outlive a reload. A browser may refuse its storage at any call (blocked, full): then the
 * values are in this tab's memory.
 */

const NAME_CHARACTERS_MAX = 128 // of a session's name; the server's limit

class Memory {
  private readonly fallback = new Map<string, string>()

  /** `open` may throw, because reading `window.localStorage` may throw. */
  constructor(private readonly open: () => Storage) {}

  get(name: string): string {
    try {
      return this.fallback.get(name) ?? this.open().getItem(name) ?? ''
    } catch {
      return this.fallback.get(name) ?? ''
    }
  }

  set(name: string, value: string): void {
    try {
      if (value) this.open().setItem(name, value)
      else this.open().removeItem(name)
      this.fallback.delete(name)
    } catch {
      this.fallback.set(name, value)
    }
  }

  /** A value that was stored by `setJson`; `otherwise` if there is none, or nobody can read it. */
  getJson<T>(name: string, otherwise: T): T {
    try {
      return (JSON.parse(this.get(name)) as T) ?? otherwise
    } catch {
      return otherwise
    }
  }

  setJson(name: string, value: unknown): void {
    this.set(name, JSON.stringify(value))
  }
}

export const ofTab = new Memory(() => window.sessionStorage)
export const ofBrowser = new Memory(() => window.localStorage)

/** The session's name in the fragment of a URL; '' if there is no valid name. */
export function sessionIn(hash: string): string {
  try {
    return asSession(decodeURIComponent(hash.slice(1)))
  } catch {
    return '' // a malformed percent encoding
  }
}

/** The name if it is valid as a session's name on the server and in a URL's path; otherwise ''. */
export function asSession(name: string): string {
  const isPrintable = !/[\p{Cc}\p{Cs}]/u.test(name) // no control character, no lone surrogate
  const isPlace = name === '.' || name === '..' // a browser removes these from a path
  return isPrintable && !isPlace && [...name].length <= NAME_CHARACTERS_MAX ? name : ''
}

/** A channel between the tabs of this browser; null if the browser refuses one. */
export function openChannel(name: string): BroadcastChannel | null {
  try {
    return new BroadcastChannel(name)
  } catch {
    return null
  }
}

/** 96 random bits. Browsers have no crypto.randomUUID on a page that came over plain http from another machine. */
export function randomName(): string {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}
