// Reads an answer with clients of gRPC, gRPC-Web and Connect: what a program and a page share.
// The messages come from the descriptors of proto/, so no code is generated for these tests.
import { create, createFileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";

const TRIES_MAX = 50;
const PATH = "/tailrace.v1.Tailrace/";

// Returns the service and its messages; `descriptors` is a FileDescriptorSet in base64.
export function schema(descriptors) {
  const bytes = Uint8Array.from(atob(descriptors), (each) => each.charCodeAt(0));
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes));
  return {
    service: registry.getService("tailrace.v1.Tailrace"),
    message: (name) => registry.getMessage(`tailrace.v1.${name}`),
  };
}

// A reader over a transport of Connect: `open(url)` makes the transport.
export const overConnect = (open) => ({
  attach: (url, { service }, request, signal) =>
    createClient(service, open(url)).attach(request, { signal }),
  unary: (url, { service }, method, request) => createClient(service, open(url))[method](request),
});

// Attaches at one node after the other until `end`; drops the connection after `cutAfter` events of
// the first one. Returns all events and the codes of the breaks.
export async function readAll(client, urls, known, id, cutAfter) {
  const events = [];
  const breaks = [];
  for (let number = 0; events.at(-1)?.kind.case !== "end" && number < TRIES_MAX; number += 1) {
    const url = urls[number % urls.length];
    const cursor = events.at(-1)?.id ?? "";
    const stopping = new AbortController();
    try {
      for await (const event of client.attach(url, known, { id, cursor }, stopping.signal)) {
        if (event.id) events.push(event);
        if (number === 0 && events.length === cutAfter) stopping.abort();
      }
    } catch (error) {
      breaks.push(`${error.code} ${error}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  return { events: events.map((event) => [event.id, event.kind.case, event.kind.value?.text ?? ""]), breaks };
}

// Start, Get, Cancel, Session, and what an unknown generation is answered with.
export async function callAll(client, url, known, prompt) {
  const started = await client.unary(url, known, "start", { prompt, session: "js" });
  const cancelled = await client.unary(url, known, "cancel", { id: started.id });
  const found = await client.unary(url, known, "get", { id: started.id });
  const page = await client.unary(url, known, "session", { session: "js" });
  const gone = await client.unary(url, known, "get", { id: "gen_none" }).catch((error) => error);
  return {
    id: started.id,
    statuses: [started.status, cancelled.status, found.status],
    listed: page.generations.map((each) => each.id),
    gone: gone instanceof ConnectError ? Code[gone.code] : String(gone.code ?? gone),
  };
}

// The official grpc-web client has callbacks; `base` is its GrpcWebClientBase, `format` text or binary.
export const overGrpcWeb = ({ GrpcWebClientBase, MethodDescriptor, MethodType }, format) => {
  const descriptor = (known, method, kind, input, output) =>
    new MethodDescriptor(
      PATH + method, kind, Object, Object,
      (request) => toBinary(known.message(input), create(known.message(input), request)),
      (bytes) => fromBinary(known.message(output), bytes),
    );
  const INPUTS = { start: "GenerateRequest", get: "GetRequest", cancel: "CancelRequest", session: "SessionRequest" };
  return {
    async *attach(url, known, request, signal) {
      const method = descriptor(known, "Attach", MethodType.SERVER_STREAMING, "AttachRequest", "Event");
      const stream = new GrpcWebClientBase({ format }).serverStreaming(url + PATH + "Attach", request, {}, method);
      const waiting = [];
      let wake = () => {};
      const put = (item) => { waiting.push(item); wake(); };
      stream.on("data", (event) => put({ event }));
      stream.on("error", (error) => put({ error }));
      stream.on("end", () => put({ end: true }));
      signal.addEventListener("abort", () => { stream.cancel(); put({ error: { code: "cut" } }); });
      for (;;) {
        while (!waiting.length) await new Promise((resolve) => { wake = resolve; });
        const { event, error, end } = waiting.shift();
        if (error) throw error;
        if (end) return;
        yield event;
      }
    },
    unary(url, known, method, request) {
      const name = method[0].toUpperCase() + method.slice(1);
      const output = method === "session" ? "SessionResponse" : "Generation";
      const told = descriptor(known, name, MethodType.UNARY, INPUTS[method], output);
      return new GrpcWebClientBase({ format }).unaryCall(url + PATH + name, request, {}, told);
    },
  };
};

