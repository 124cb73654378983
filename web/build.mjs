// Builds the pages: `node build.mjs [directory]`. Without a directory the output is api/pages/static, which is
// committed: a node serves these files as they are. The same sources give the same bytes on every machine.
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

const here = dirname(fileURLToPath(import.meta.url))
const output = resolve(process.argv[2] ?? join(here, '../api/pages/static'))
// Each name is a script of a page: /page/chat.js. What only some pages need is imported with `import()`,
// and becomes a file with a hash of its content in its name.
const ENTRIES = { chat: 'src/chat/main.ts', docs: 'src/docs/main.ts', console: 'src/console/main.ts', 'voice-worklet': 'src/chat/voice/worklet.ts', math: 'src/chat/math.css' }

/** KaTeX names each font in three formats. All browsers that run these pages read woff2. */
const onlyWoff2 = {
  name: 'only woff2',
  setup({ onLoad }) {
    onLoad({ filter: /katex\.css$/ }, ({ path }) => {
      const contents = readFileSync(path, 'utf8').replace(/,\s*url\([^)]*\.(woff|ttf)\)\s*format\([^)]*\)/g, '')
      return { contents, loader: 'css' }
    })
  },
}

execFileSync(process.execPath, [join(here, 'node_modules/typescript/bin/tsc'), '--noEmit'], { cwd: here, stdio: 'inherit' })
rmSync(output, { recursive: true, force: true })
mkdirSync(output, { recursive: true })
cpSync(join(here, 'public'), output, { recursive: true })
const { metafile } = await build({
  absWorkingDir: here, // names and hashes depend on paths below this folder only
  entryPoints: Object.entries(ENTRIES).map(([out, path]) => ({ in: path, out })),
  outdir: output,
  bundle: true, splitting: true, format: 'esm', target: ['es2022', 'firefox115', 'safari16.4'], minify: true,
  charset: 'utf8', legalComments: 'none', metafile: true, logLevel: 'warning',
  chunkNames: '[name]-[hash]', assetNames: '[name]-[hash]', loader: { '.woff2': 'file' }, plugins: [onlyWoff2],
  alias: { tailrace: '../clients/js/src/index.ts', 'tailrace-source': '../clients/js/src' },
})
writeFileSync(join(output, 'licences.txt'), licences(Object.keys(metafile.inputs)))
report()

/** The licences of the packages of which something is in the output. */
function licences(inputs) {
  const names = new Set(inputs.flatMap((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? []))
  const parts = [...names].sort().map((name) => {
    const folder = join(here, 'node_modules', name)
    const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
    const files = readdirSync(folder).filter((each) => /^(licen[cs]e|copying|notice)/i.test(each)).sort()
    if (!files.length) throw new Error(`the package ${name} has no file with its licence`)
    const texts = files.map((each) => readFileSync(join(folder, each), 'utf8').replaceAll('\r\n', '\n').trim())
    return `${name} ${version} (${license})\n\n${texts.join('\n\n')}\n`
  })
  const intro = 'The pages of Tailrace are under the Apache License 2.0. They contain these packages:\n'
  return [intro, ...parts].join(`\n${'-'.repeat(80)}\n\n`)
}

function report() {
  for (const name of readdirSync(output).sort()) {
    if (!/\.(js|css|html)$/.test(name)) continue
    const bytes = readFileSync(join(output, name))
    console.log(`${name}: ${bytes.length} bytes, ${gzipSync(bytes, { level: 9 }).length} gzipped`)
  }
}
