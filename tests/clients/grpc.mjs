// The clients of gRPC, gRPC-Web and Connect in Node.js, told by lines of JSON on stdin what to do.
import { createInterface } from "node:readline";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import grpc from "@grpc/grpc-js";
import { callAll, overConnect, readAll, schema } from "./grpc-calls.js";

const say = (said) => process.stdout.write(JSON.stringify(said) + "\n");
const httpVersion = "1.1";

// The official client, with the messages of the descriptors.
const channels = new Map();
const channel = (target) => {
  if (!channels.has(target)) channels.set(target, new grpc.Client(target, grpc.credentials.createInsecure()));
  return channels.get(target);
};
const INPUTS = { attach: "AttachRequest", start: "GenerateRequest", get: "GetRequest", cancel: "CancelRequest", session: "SessionRequest" };
const codecs = (known, method, output) => [
  `/tailrace.v1.Tailrace/${method[0].toUpperCase()}${method.slice(1)}`,
  (request) => Buffer.from(toBinary(known.message(INPUTS[method]), create(known.message(INPUTS[method]), request))),
  (bytes) => fromBinary(known.message(output), bytes),
];
const official = {
  async *attach(target, known, request, signal) {
    const call = channel(target).makeServerStreamRequest(...codecs(known, "attach", "Event"), request, new grpc.Metadata(), {});
    signal.addEventListener("abort", () => call.cancel());
    yield* call;
  },
  unary: (target, known, method, request) =>
    new Promise((resolve, reject) => {
      const output = method === "session" ? "SessionResponse" : "Generation";
      channel(target).makeUnaryRequest(...codecs(known, method, output), request, new grpc.Metadata(), {}, (error, answer) =>
        error ? reject(error) : resolve(answer));
    }),
};

const clients = {
  "grpc-js": official,
  "connect-node-grpc": overConnect((target) => createGrpcTransport({ baseUrl: `http://${target}` })),
  "connect-node": overConnect((baseUrl) => createConnectTransport({ baseUrl, httpVersion })),
  "connect-node-grpc-web": overConnect((baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion })),
};

const ops = {
  read: ({ client, urls, descriptors, id, cutAfter }) => readAll(clients[client], urls, schema(descriptors), id, cutAfter),
  call: ({ client, url, descriptors, prompt }) => callAll(clients[client], url, schema(descriptors), prompt),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { op, ...told } = JSON.parse(line);
  try {
    say({ value: await ops[op](told) });
  } catch (error) {
    say({ error: String(error.stack ?? error) });
  }
}
