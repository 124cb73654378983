// The package `tailrace` in a page, which a test tells what to do: `run` takes what tailrace.mjs reads from stdin.
import { Tailrace } from '../../clients/js/dist/index.js'
import { opsOf } from './tailrace-ops.mjs'

const ops = opsOf({ Tailrace, WebSocket: globalThis.WebSocket, key: null })
globalThis.run = ({ op, ...rest }) => ops[op](rest)
