/** What a conversation tells, and what it is asked. */

import type { PageFile, Turn } from './turn.js'

export interface Hooks {
  /** Turns came, went or changed places. */
  arranged(): void
  /** Something of this turn has changed. */
  changed(turn: Turn): void
  reachable(isReachable: boolean): void
  problem(text: string): void
  /** A generation of this conversation is new. */
  started(): void
}

export interface Asked {
  prompt: string
  /** With pictures and texts of files; otherwise the prompt itself. */
  content?: unknown
  files?: PageFile[]
  model: string
  title: string
  /** The turn that the new one takes the place of. */
  replaced?: Turn
}
