// Runs test/*.test.ts, each bundled with the modules that it asks.
import { spawnSync } from 'node:child_process'
import { readdirSync, rmSync } from 'node:fs'
import { build } from 'esbuild'

const names = readdirSync('test').filter((name) => name.endsWith('.test.ts'))
rmSync('.build', { recursive: true, force: true })
await build({
  entryPoints: names.map((name) => `test/${name}`), outdir: '.build', bundle: true, format: 'esm', platform: 'node',
  outExtension: { '.js': '.mjs' }, logLevel: 'warning',
  alias: { tailrace: '../clients/js/src/index.ts', 'tailrace-source': '../clients/js/src' },
})
const built = names.map((name) => `.build/${name.replace(/\.ts$/, '.mjs')}`)
process.exit(spawnSync(process.execPath, ['--test', ...built], { stdio: 'inherit' }).status ?? 1)
