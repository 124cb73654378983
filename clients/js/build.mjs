// Builds dist/: one ES module and one CommonJS module for each entry, and the types of both.
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, rmSync, writeFileSync, existsSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

const CORE_BYTES_MAX = 8_000
const entries = ['index', 'ag-ui', 'ai-sdk', 'audio', 'batch', 'openai', 'react', 'deep-chat', 'produce', 'tabs'].filter((name) => existsSync(`src/${name}.ts`))

/** Members of the core's own objects, which no other entry and no caller sees: the minifier may shorten their names. */
const internal = [
  'watchdog', 'followed', 'heartbeatMs', 'stopper', 'sleepers', 'credentials', 'isClosed', 'isOpen', 'isIterated', 'hasIterated',
  'heardAt', 'hasEvents', 'delivered', 'lastCalls', 'leftUntil', 'probeMs', 'probeAt', 'backOff', 'silenceMs', 'outageMs', 'isHeldBack',
  'hasLived', 'refusals', 'refusal', 'consumers', 'isWhole', 'isOver', 'isExplained', 'lookMs', 'openMs', 'extraMs', 'waiting', 'settled', 'failure',
  'settle', 'summary', 'notify', 'queued', 'hasGap', 'resume', 'put', 'empty', 'hold', 'caughtUp', 'takes', 'opened', 'isDead', 'lookMs',
  'sockets', 'readers', 'countedAt', 'outage', 'probe', 'say', 'isExplained', 'known', 'shown',
  'picker', 'journal', 'isAuto', 'subscribe', 'fold', 'change', 'release', 'leave', 'tries', 'cursors', 'loaded', 'host',
]

rmSync('dist', { recursive: true, force: true })
const common = {
  entryPoints: entries.map((name) => `src/${name}.ts`), bundle: true, target: 'es2021', outdir: 'dist',
  // Adapters use the core of the application, and the peers that it has installed.
  external: ['tailrace', 'react'], minify: true, mangleProps: new RegExp(`^(${internal.join('|')})$`), legalComments: 'none', logLevel: 'warning',
}
await build({ ...common, format: 'esm', platform: 'neutral' })
await build({ ...common, format: 'cjs', platform: 'node', outExtension: { '.js': '.cjs' } })
execFileSync('node_modules/.bin/tsc', ['--project', 'tsconfig.json'], { stdio: 'inherit' })
// The same types for `require`, whose resolver demands the name `.d.cts` for them.
for (const name of readdirSync('dist', { recursive: true })) {
  if (!name.endsWith('.d.ts')) continue
  const text = readFileSync(`dist/${name}`, 'utf8').replace(/(from '\.[^']*)\.js'/g, "$1.cjs'").replace(/(from "\.[^"]*)\.js"/g, '$1.cjs"')
  writeFileSync(`dist/${name.replace(/\.d\.ts$/, '.d.cts')}`, text)
}
for (const name of entries) {
  const bytes = gzipSync(readFileSync(`dist/${name}.js`), { level: 9 }).length
  console.log(`${name}: ${bytes} bytes gzipped`)
  if (name === 'index' && bytes > CORE_BYTES_MAX) throw new Error(`the core has more than ${CORE_BYTES_MAX} bytes gzipped`)
}
