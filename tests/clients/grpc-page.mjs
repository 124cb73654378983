// The clients of gRPC-Web and Connect in a page.
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import * as grpcWeb from "grpc-web";
import { callAll, overConnect, overGrpcWeb, readAll, schema } from "./grpc-calls.js";

const clients = {
  "connect": overConnect((baseUrl) => createConnectTransport({ baseUrl, useBinaryFormat: true })),
  "connect-json": overConnect((baseUrl) => createConnectTransport({ baseUrl })),
  "connect-grpc-web": overConnect((baseUrl) => createGrpcWebTransport({ baseUrl })),
  "grpc-web-text": overGrpcWeb(grpcWeb, "text"),
  "grpc-web": overGrpcWeb(grpcWeb, "binary"),
};

window.read = (name, urls, descriptors, id, cutAfter) =>
  readAll(clients[name], urls, schema(descriptors), id, cutAfter);
window.call = (name, url, descriptors, prompt) => callAll(clients[name], url, schema(descriptors), prompt);
