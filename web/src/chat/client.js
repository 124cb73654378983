// A client of the API: JSON requests, and a stream that is followed to its end over any number of
// connections. A stream ends with the event `end`; a body that stops without it was broken off.
"use strict";

import { ofTab } from "./memory.js";

const PAUSE_MS = 400; // before the first repetition; it doubles with each further one
const PAUSE_MS_MAX = 15_000;
const SILENCE_MS_MAX = 60_000; // without a byte; the server's heartbeats come more often

export class HttpError extends Error {
  constructor(status, code, message, isRetryable, retryAfterMs) {
    super(message);
    this.status = status;
    this.code = code;
    this.isRetryable = isRetryable;
    this.retryAfterMs = retryAfterMs;
  }
}

export class Client {
  /** askKey(problem) -> Promise<void>: called after a 401; then the request is sent again. */
  constructor(askKey) {
    this.askKey = askKey;
    this.asking = null;
  }

  async request(path, { method = "GET", headers = {}, body, signal } = {}) {
    for (;;) {
      const key = ofTab.get("tailrace.key");
      const sent = { ...headers };
      if (key) sent["Authorization"] = `Bearer ${key}`;
      if (body !== undefined) sent["Content-Type"] = "application/json";
      const response = await fetch(path, {
        method, headers: sent, signal, cache: "no-store",
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      if (response.ok) return response;
      const error = await readError(response);
      if (error.status !== 401) throw error;
      if (ofTab.get("tailrace.key") !== key) continue; // another request has asked for the key
      this.asking ??= this.askKey(key ? "This key is not known here. Try another." : "")
        .finally(() => { this.asking = null; });
      await this.asking;
    }
  }

  async json(path, options) {
    return (await this.request(path, options)).json();
  }

  /** Repeat a request until it succeeds; throw only errors that waiting cannot cure. */
  async persist(path, options, onState) {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.json(path, options);
      } catch (error) {
        if (options?.signal?.aborted || !isPassing(error)) throw error;
        onState?.("waiting");
        await pause(attempt, error.retryAfterMs, options?.signal);
      }
    }
  }

  /**
   * Read the events of a generation after `cursor`, until its end.
   * onEvent({id, type, data}); onState("live" | "waiting").
   */
  async follow(id, cursor, { onEvent, onState, signal }) {
    for (let attempt = 0; ; attempt += 1) {
      try {
        for await (const event of this.stream(id, cursor, signal, onState)) {
          attempt = 0;
          cursor = event.id === "0-0" ? "" : event.id;
          onEvent(event);
          if (event.type === "end") return;
        }
      } catch (error) {
        if (signal?.aborted || !isPassing(error)) throw error;
        onState("waiting");
        await pause(attempt, error.retryAfterMs, signal);
        continue;
      }
      return; // 204: the cursor is the last event
    }
  }

  async *stream(id, cursor, signal, onState) {
    const silence = new AbortController();
    const joined = signal ? AbortSignal.any([signal, silence.signal]) : silence.signal;
    let timer;
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS_MAX);
    };
    const headers = { Accept: "text/event-stream" };
    if (cursor) headers["Last-Event-ID"] = cursor;
    try {
      alive();
      const response = await this.request(`/v1/generations/${id}/events`, { headers, signal: joined });
      if (response.status === 204) return;
      onState("live");
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new EventParser();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) throw new TypeError("the stream broke off");
        alive();
        for (const event of parser.feed(value)) {
          yield event;
          if (event.type === "end") return;
        }
      }
    } catch (error) {
      if (silence.signal.aborted && !signal?.aborted) throw new TypeError("the stream went silent");
      throw error;
    } finally {
      clearTimeout(timer);
      silence.abort(); // closes the connection, also after a `return` in the middle
    }
  }
}

/** Parses a text stream into server-sent events. */
export class EventParser {
  constructor() {
    this.rest = "";
    this.reset();
  }

  reset() {
    this.id = "";
    this.type = "message";
    this.data = [];
  }

  *feed(text) {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.data.length) {
          yield { id: this.id, type: this.type, data: JSON.parse(this.data.join("\n")) };
        }
        this.reset();
      } else if (line.startsWith("id: ")) this.id = line.slice(4);
      else if (line.startsWith("event: ")) this.type = line.slice(7);
      else if (line.startsWith("data: ")) this.data.push(line.slice(6));
    }
  }
}

async function readError(response) {
  const after = Number(response.headers.get("Retry-After"));
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // The body is not JSON: a proxy has answered. The status is enough.
  }
  return new HttpError(
    response.status,
    error.code ?? "",
    error.message ?? `The server answered ${response.status}.`,
    error.retryable ?? response.status >= 500,
    after > 0 ? after * 1000 : 0,
  );
}

function isPassing(error) {
  return error instanceof HttpError ? error.isRetryable : error.name !== "AbortError";
}

/** Wait, longer each time, and for a random part of the pause, so that clients spread out. */
function pause(attempt, atLeastMs = 0, signal) {
  const backOff = Math.min(PAUSE_MS_MAX, PAUSE_MS * 2 ** Math.min(attempt, 10));
  const ms = Math.max(atLeastMs, backOff * (0.5 + Math.random() / 2));
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
