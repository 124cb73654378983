// Reads one generation over /v1/ws with each WebSocket client, and asks for a pong after each event:
// plain replies then stand between compressed frames. argv: URL of a node, body of the generation,
// which starts once all sockets are open. Prints {client: {extensions, text, pongs, code}} as JSON.

import { WebSocket as Undici } from "undici";
import Ws from "ws";

const [url, body] = process.argv.slice(2);
const address = `${url.replace("http", "ws")}/v1/ws`;
const deflate = (options) => () =>
  new Ws(address, "tailrace.v1", { perMessageDeflate: { threshold: 0, ...options } });

const clients = {
  "ws": () => new Ws(address, "tailrace.v1"),
  "ws, compresses everything": deflate({}),
  "ws, no context of the server": deflate({ serverNoContextTakeover: true }),
  "ws, no context of the client": deflate({ clientNoContextTakeover: true }),
  "ws, a small window of the server": deflate({ serverMaxWindowBits: 9 }),
  "ws, the window of a chain": deflate({ serverMaxWindowBits: 11 }),
  "ws, a small window of the client": deflate({ clientMaxWindowBits: 9 }),
  "ws, wants its context": deflate({ clientNoContextTakeover: false }),
  "ws, plain": () => new Ws(address, "tailrace.v1", { perMessageDeflate: false }),
  "undici": () => new Undici(address, "tailrace.v1"),
};

const names = Object.keys(clients);
let opened = 0;
let start;
const id = new Promise((resolve) => {
  start = async () => {
    const headers = { "content-type": "application/json" };
    const answer = await fetch(`${url}/v1/generations`, { method: "POST", headers, body });
    resolve((await answer.json()).id);
  };
});
const settle = () => {
  opened += 1;
  if (opened === names.length) start();
};

const read = (open) =>
  new Promise((resolve) => {
    const seen = { extensions: "", text: "", pongs: 0, code: 0, error: "" };
    const socket = open();
    const say = (frame) => socket.send(JSON.stringify(frame));
    socket.onopen = async () => {
      seen.extensions = socket.extensions;
      say({ type: "ping", pad: "padding ".repeat(20_000) });
      settle();
      say({ type: "subscribe", id: await id });
    };
    socket.onerror = (event) => {
      if (!seen.extensions) settle(); // refused
      seen.error = String(event.message ?? event.error);
    };
    socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.type === "pong") seen.pongs += 1;
      else if (event.type === "token") seen.text += event.text;
      if (event.type === "end") socket.close(1000);
      else if (event.type !== "pong") say({ type: "ping" });
    };
    socket.onclose = ({ code }) => resolve({ ...seen, code });
  });

const found = await Promise.all(names.map((name) => read(clients[name])));
console.log(JSON.stringify(Object.fromEntries(names.map((name, n) => [name, found[n]]))));
