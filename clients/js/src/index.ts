/** `tailrace`: the core. Each adapter is an entry of its own. */

export { Tailrace, type GenerateOptions, type Message, type TailraceOptions } from './client.js'
export { Answer, type Result, type TextOptions } from './answer.js'
export { perFrame } from './frames.js'
export { Session, type SessionEntry } from './session.js'
export type { CursorStorage } from './journal.js'
export { TailraceError } from './errors.js'
export type { Clock, SocketConstructor, SocketLike, Token, TokenSource } from './environment.js'
export type * from './events.js'
export type { ToolCall } from './reading.js'
export type { ReadRequest, Transport, TransportName } from './transports/contract.js'
