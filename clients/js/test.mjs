// Runs test/*.test.mjs against the modules of src/, each translated alone.
import { spawnSync } from 'node:child_process'
import { readdirSync, rmSync } from 'node:fs'
import { build } from 'esbuild'

rmSync('.build', { recursive: true, force: true })
const sources = readdirSync('src', { recursive: true }).filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
await build({ entryPoints: sources.map((name) => `src/${name}`), outdir: '.build', outbase: 'src', format: 'esm', target: 'es2021' })
const tests = readdirSync('test').filter((name) => name.endsWith('.test.mjs')).map((name) => `test/${name}`)
process.exit(spawnSync(process.execPath, ['--test', ...tests], { stdio: 'inherit' }).status ?? 1)
