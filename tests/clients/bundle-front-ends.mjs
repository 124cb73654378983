// Bundles front-ends.mjs:
// `node bundle-front-ends.mjs <LobeChat> <LobeHub> <LibreChat's agents> <output>`.
//
// The packages are unpacked without their dependencies, which take more than a gigabyte. The
// packages that speak to a model server are installed here. A stub stands for every other package:
// the code under test loads it and does not use it.
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const [lobechat, lobehub, librechat, outfile] = process.argv.slice(2);

// Where a package that `importer` names is found, and under which name.
function place(path, importer, resolveDir) {
  const lobe = [lobechat, lobehub].find((root) => importer.startsWith(root));
  if (lobe) {
    const own = /^(?:@lobechat\/([^/]+)|(model-bank))(.*)$/.exec(path);
    if (own) return [`./${own[1] ?? own[2]}/src${own[3]}`, `${lobe}/packages`];
    return [path.replace(/^openai(?=\/|$)/, 'openai4'), here];
  }
  if (importer.startsWith(librechat)) {
    const isOpenAI = /^openai(\/|$)/.test(path); // the version that LangChain brings
    return [path, isOpenAI ? `${here}/node_modules/@langchain/openai` : here];
  }
  return [path, resolveDir];
}

const STUB = `const stub = new Proxy(function () {}, {
  getPrototypeOf: () => stub, // esbuild copies a module, and keeps its prototype
  get: (_, name) =>
    name === Symbol.toPrimitive ? () => 'stub'
    : typeof name === 'symbol' || name === '__esModule' ? undefined : stub,
  construct: () => stub,
  apply: () => stub,
});
module.exports = stub;`;

const frontEnds = {
  name: 'front ends',
  setup({ onResolve, onLoad, resolve }) {
    onResolve({ filter: /^lobe(chat|hub)$/ }, ({ path }) => ({
      path: `${path === 'lobehub' ? lobehub : lobechat}/packages/model-runtime/src/providers/openai/index.ts`,
    }));
    onResolve({ filter: /^lobehub-agent$/ }, () => ({
      path: `${lobehub}/src/services/agentRuntime/client.ts`,
    }));
    // What LobeHub's server publishes; its connection to Redis is the program's.
    onResolve({ filter: /^lobehub-events$/ }, () => ({
      path: `${lobehub}/src/server/modules/AgentRuntime/StreamEventManager.ts`,
    }));
    onResolve({ filter: /^\.\/redis$/ }, ({ importer }) =>
      importer.startsWith(lobehub) ? { path: 'redis', namespace: 'program' } : undefined,
    );
    onLoad({ filter: /.*/, namespace: 'program' }, () => ({
      contents: 'export const getAgentRuntimeRedisClient = () => globalThis.lobehubRedis;',
    }));
    onResolve({ filter: /^librechat$/ }, () => ({
      path: `${librechat}/dist/esm/llm/openai/index.mjs`,
    }));
    onResolve({ filter: /^[^./]/ }, async ({ path, importer, kind, resolveDir, pluginData }) => {
      if (pluginData === 'again' || kind === 'entry-point') return undefined;
      const [name, from] = place(path, importer, resolveDir);
      const found = await resolve(name, { kind, importer, resolveDir: from, pluginData: 'again' });
      return found.errors.length ? { path, namespace: 'stub' } : found;
    });
    onLoad({ filter: /.*/, namespace: 'stub' }, () => ({ contents: STUB }));
  },
};

await build({
  entryPoints: [`${here}/front-ends.mjs`],
  outfile,
  bundle: true,
  platform: 'node',
  format: 'esm',
  logLevel: 'error',
  plugins: [frontEnds],
  banner: {
    js: "import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url);",
  },
});
