// The chat page: shows one session, each generation as a turn. All state is in the server's log: the
// page may be closed at any time, and a new page reads everything again by the session's name.
"use strict";

import "./chat.css";
import { Client, HttpError } from "./client.js";
import { render } from "./markdown.js";
import { asSession, ofBrowser, ofTab, openChannel, sessionIn } from "./memory.js";

const LOOK_MS = 2_000; // between two reads of the session, for generations of other tabs
const LOOK_HIDDEN_MS = 15_000; // the same while the tab is hidden
const PAINT_MS = 60; // at least, between two paints of one answer
const HISTORY_CHARACTERS_MAX = 200_000;

const $ = (id) => document.getElementById(id);
const turns = new Map(); // generation id -> Turn, oldest first
const channel = openChannel("tailrace");
const client = new Client(askKey);

let session = "";
let leaving = new AbortController(); // aborted when the session changes

// One prompt and its answer

class Turn {
  constructor(id, prompt) {
    this.id = id;
    this.prompt = prompt;
    this.text = "";
    this.reasoning = "";
    this.status = "queued";
    this.note = "";
    this.cursor = "";
    this.element = $("turn").content.firstElementChild.cloneNode(true);
    this.part = (name) => this.element.querySelector(name);
    this.paintTimer = 0;
    this.paint();
  }

  get isActive() {
    return this.status === "queued" || this.status === "running";
  }

  /** Take over the server's snapshot: the text so far, and the cursor to read on from. */
  adopt(snapshot) {
    this.prompt = lastPrompt(snapshot.messages) || this.prompt;
    this.text = snapshot.text;
    this.reasoning = snapshot.reasoning;
    this.status = snapshot.status;
    this.cursor = snapshot.last_event_id === "0-0" ? "" : snapshot.last_event_id;
    this.note = describe(snapshot);
    this.paint();
  }

  take({ id, type, data }) {
    this.cursor = id === "0-0" ? "" : id;
    if (type === "token") this.text += data.text;
    else if (type === "reasoning") this.reasoning += data.text;
    else if (type === "reset") this.text = this.reasoning = "";
    else if (type === "progress") this.note = `${data.stage}: ${Math.round(data.percentage)} %`;
    else if (type === "end") {
      this.status = data.status;
      this.note = describe(data);
    }
    if (type !== "end") this.status = "running";
    if (type === "token") this.note = "";
    showState();
    this.paintSoon();
  }

  fail(error) {
    this.status = "failed";
    this.note = explain(error);
    this.paint();
  }

  paintSoon() {
    // Each paint builds the complete answer again, so a long answer is painted less often.
    const delay = PAINT_MS + this.text.length / 200;
    this.paintTimer ||= setTimeout(() => this.paint(), this.isActive ? delay : 0);
  }

  paint() {
    clearTimeout(this.paintTimer);
    this.paintTimer = 0;
    const isAtBottom = atBottom();
    this.element.dataset.state = this.isActive ? "running" : this.status;
    this.part(".prompt").textContent = this.prompt;
    this.part(".answer").replaceChildren(render(this.text));
    this.part(".reasoning").hidden = !this.reasoning;
    this.part(".reasoning div").textContent = this.reasoning;
    this.part(".status").textContent = this.note || (this.status === "queued" ? "waiting for a worker" : "");
    this.part(".event-id").textContent = this.cursor;
    if (isAtBottom) toBottom();
  }
}

function describe({ status, finish_reason: reason, error, usage }) {
  if (status === "failed") return error ? `Failed: ${error.message} (${error.code})` : "Failed.";
  if (status === "cancelled") return "Stopped.";
  if (reason === "length") return "Cut off at the model's length limit.";
  if (status === "completed" && usage) return `${usage.completion_tokens} tokens`;
  return "";
}

function lastPrompt(messages) {
  const last = (messages ?? []).findLast((message) => message.role === "user");
  if (!last) return "";
  if (typeof last.content === "string") return last.content;
  return (last.content ?? []).map((part) => part.text ?? "").join("\n");
}

// The generations of this session

async function look() {
  const signal = leaving.signal;
  const found = await client.json(`/v1/sessions/${encodeURIComponent(session)}`, { signal });
  if (signal.aborted) return;
  for (const item of found.generations.reverse()) {
    if (!turns.has(item.id)) void show(addTurn(item.id, item.prompt), signal);
  }
}

function addTurn(id, prompt) {
  const turn = new Turn(id, prompt);
  turns.set(id, turn);
  $("empty").hidden = true;
  $("log").append(turn.element);
  toBottom();
  showState();
  return turn;
}

/** Show a generation's present state, and follow it to its end. */
async function show(turn, signal) {
  try {
    turn.adopt(await client.persist(`/v1/generations/${turn.id}`, { signal }, setLink));
    if (turn.isActive) {
      await client.follow(turn.id, turn.cursor, {
        signal, onState: setLink, onEvent: (event) => turn.take(event),
      });
    }
    if (turn.isActive) turn.adopt(await client.persist(`/v1/generations/${turn.id}`, { signal }, setLink));
  } catch (error) {
    if (!signal.aborted) turn.fail(error);
  } finally {
    if (!signal.aborted) showState();
  }
}

async function keepLooking() {
  for (;;) {
    try {
      await look();
      setProblem("");
    } catch (error) {
      if (error.name !== "AbortError") setProblem(explain(error));
    }
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, document.hidden ? LOOK_HIDDEN_MS : LOOK_MS);
    });
  }
}
let wake = () => {};

// The user's actions

async function send(prompt) {
  const signal = leaving.signal;
  const body = {
    messages: [...history(), { role: "user", content: prompt }],
    model: $("model").value || undefined,
    session,
  };
  // Every try sends the same key, so the prompt is accepted only once.
  const headers = { "Idempotency-Key": randomName() };
  try {
    const accepted = await client.persist(
      "/v1/generations", { method: "POST", headers, body, signal }, setLink);
    channel?.postMessage(session);
    if (signal.aborted || turns.has(accepted.id)) return;
    await show(addTurn(accepted.id, prompt), signal);
  } catch (error) {
    if (signal.aborted) return;
    setProblem(explain(error));
    $("prompt").value ||= prompt;
  }
}

/** Return the conversation so far; if it is long, only its newest turns. */
function history() {
  const messages = [];
  let characters = 0;
  for (const turn of [...turns.values()].reverse()) {
    characters += turn.prompt.length + turn.text.length;
    if (characters > HISTORY_CHARACTERS_MAX) break;
    if (!turn.text) continue;
    messages.unshift(
      { role: "user", content: turn.prompt }, { role: "assistant", content: turn.text });
  }
  return messages;
}

async function stop() {
  for (const turn of turns.values()) {
    if (!turn.isActive) continue;
    try {
      await client.persist(`/v1/generations/${turn.id}/cancel`, { method: "POST" }, setLink);
    } catch (error) {
      setProblem(explain(error));
    }
  }
}

function enter(name) {
  leaving.abort();
  leaving = new AbortController();
  session = name;
  ofBrowser.set("tailrace.session", name);
  if (location.hash.slice(1) !== encodeURIComponent(name)) location.hash = encodeURIComponent(name);
  turns.forEach((turn) => turn.element.remove());
  turns.clear();
  $("empty").hidden = false;
  setLink("idle");
  showState();
  wake();
  $("prompt").focus();
}

// Status and messages

let link = "idle";

function setLink(state) {
  link = state;
  showState();
}

function showState() {
  const active = [...turns.values()].filter((turn) => turn.isActive);
  $("stop").hidden = active.length === 0;
  const state = active.length === 0 && link !== "waiting" ? "idle" : link;
  const newest = active.at(-1);
  $("state").dataset.state = state;
  $("state-text").textContent = {
    idle: "ready",
    live: `live ${newest?.cursor ?? ""}`,
    waiting: "connection lost, trying again",
  }[state];
}

function setProblem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function explain(error) {
  if (!(error instanceof HttpError)) return "The server cannot be reached. This page keeps trying.";
  if (error.status === 410) return "This answer is past its retention: the server no longer keeps it.";
  if (error.status === 404) return `${error.message}: it was lost or never there. Ask again.`;
  if (error.status === 413) return "That is too long for this server. Shorten it, or start a new chat.";
  return error.message;
}

function askKey(problem) {
  if (problem) $("key-problem").textContent = problem;
  $("ask-key").showModal();
  return new Promise((resolve) => {
    $("ask-key").addEventListener("close", () => {
      ofTab.set("tailrace.key", $("key").value);
      $("key").value = "";
      resolve();
    }, { once: true });
  });
}

function randomName() {
  // Browsers have no crypto.randomUUID on a page that came over plain http from another machine.
  return [...crypto.getRandomValues(new Uint8Array(12))]
    .map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function atBottom() {
  const log = $("log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < 80;
}

function toBottom() {
  $("log").scrollTop = $("log").scrollHeight;
}

function fit() {
  const field = $("prompt");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

// Wiring

async function listModels() {
  const { data } = await client.persist("/v1/models", {}, setLink);
  const chosen = ofBrowser.get("tailrace.model");
  $("model").replaceChildren(...data.map(({ id }) => new Option(id, id, false, id === chosen)));
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = $("prompt").value.trim();
  if (!prompt) return;
  $("prompt").value = "";
  fit();
  setProblem("");
  void send(prompt);
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});
$("prompt").addEventListener("input", fit);
$("ask-key").addEventListener("cancel", (event) => event.preventDefault());
$("stop").addEventListener("click", () => void stop());
$("new").addEventListener("click", () => enter(randomName()));
$("model").addEventListener("change", () => ofBrowser.set("tailrace.model", $("model").value));
window.addEventListener("hashchange", () => {
  const name = sessionIn(location.hash);
  if (name && name !== session) enter(name);
});
document.addEventListener("visibilitychange", () => wake());
channel?.addEventListener("message", ({ data }) => data === session && wake());

enter(sessionIn(location.hash) || asSession(ofBrowser.get("tailrace.session")) || randomName());
listModels().catch((error) => setProblem(explain(error)));
void keepLooking();
