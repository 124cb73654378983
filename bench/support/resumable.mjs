// Vercel's resumable-stream as its README has it, behind node:http: one process, both ends.
//
//   node resumable.mjs PORT REDIS_URL
//
// POST /say/<id> with {pieces, per_s, first_s, stays} begins a stream, which with `stays` has no end;
// GET /read/<id> follows it from its start. Says "listening" when it does.

import { once } from "node:events";
import { createServer } from "node:http";
import { createClient } from "redis";
import { createResumableStreamContext } from "resumable-stream";

const [port, url] = process.argv.slice(2);
const [publisher, subscriber] = [createClient({ url }), createClient({ url })];
await Promise.all([publisher.connect(), subscriber.connect()]);
// An own background: what the producer has to finish is not waited for by a request.
const context = createResumableStreamContext({ waitUntil: () => {}, publisher, subscriber });

/** Every piece as an SSE event, each when it is due or, if that is over or per_s is 0, at once. */
function told({ pieces, per_s, first_s, stays }) {
  const began = performance.now() + first_s * 1000;
  let n = 0;
  return new ReadableStream({
    async pull(controller) {
      if (n === pieces.length) return stays ? new Promise(() => {}) : controller.close();
      const wait = began + (per_s && n / per_s) * 1000 - performance.now();
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
      controller.enqueue(`data: ${JSON.stringify({ text: pieces[n++] })}\n\n`);
    },
  });
}

async function say(id, request, response) {
  let body = "";
  for await (const data of request) body += data;
  const stream = await context.createNewResumableStream(id, () => told(JSON.parse(body)));
  response.writeHead(202).end();
  for await (const _ of stream); // whoever asked for it listens, too, or it would pile up here
}

async function read(id, response) {
  const stream = await context.resumeExistingStream(id);
  if (!stream) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": "text/event-stream" });
  for await (const text of stream) if (!response.write(text)) await once(response, "drain");
  response.end();
}

const server = createServer((request, response) => {
  const [, what, id] = request.url.split("/");
  const done = what === "say" ? say(id, request, response) : read(id, response);
  done.catch((error) => {
    console.error(error);
    response.destroy();
  });
});
server.listen({ port: Number(port), host: "127.0.0.1", backlog: 2048 }, () => console.log("listening"));
