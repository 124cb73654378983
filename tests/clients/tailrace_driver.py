"""Runs `tailrace_client`: reads orders as lines of JSON from stdin, writes results to stdout.

The ops are those of tailrace.mjs. With the argument `sync` each reading has a thread.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tailrace_client import Answer, AsyncTailrace, Event, Result, Tailrace, TailraceError


def told(error: TailraceError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "status": error.status,
    }


def event_of(event: Event) -> dict[str, Any]:
    text = {"text": event.text} if event.type in ("token", "reasoning") else {}
    return {**event.members, **text, "type": event.type, "id": event.id}


def result_of(result: Result) -> dict[str, Any]:
    return {"id": result.id, "status": result.status, "text": result.text, "error": result.error}


class WrongClock:
    """A clock that is wrong, and jumps when told."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self._offset_s = float(told.get("offset_s", 0))
        self._retries = 0

    def now(self) -> float:
        return time.monotonic() + self._offset_s

    def passed(self, name: str, count: int) -> None:
        if self._told.get(name) == count:
            self._offset_s += self._told["jump_s"]

    def retried(self, error: TailraceError) -> None:
        self._retries += 1
        self.passed("after_retries", self._retries)


def options(asked: dict[str, Any]) -> dict[str, Any]:
    found = {key: asked[key] for key in ("url", "transport") if key in asked}
    found["token"] = os.environ.get("API_KEY") or None
    if "tokens" in asked:
        tokens = asked["tokens"]
        found["token"] = lambda: next(
            each["token"] for each in tokens if each["until"] > time.time() + 1
        )
    if "clock" in asked:
        clock = asked["clock"] = WrongClock(asked["clock"])
        found |= {"clock": clock.now, "on_retry": clock.retried}
    if "jitter" in asked:
        found["random"] = lambda: asked["jitter"]
    return {**found, **asked.get("options", {})}


async def read(client: AsyncTailrace, run: dict[str, Any]) -> dict[str, Any]:
    """One reading: generate or attach, iterate, take the result."""
    events: list[dict[str, Any]] = []
    answer = None
    try:
        if "id" in run:
            answer = client.attach(run["id"], run.get("cursor"))
        else:
            answer = await client.generate(**run["body"])
        async for event in answer:
            events.append(event_of(event))
            if "clock" in run:
                run["clock"].passed("after_events", len(events))
            if len(events) == run.get("cancelAt"):
                await answer.cancel()
            if len(events) == run.get("upto"):
                break
        left = answer.cursor
        result = result_of(await answer.result())
    except TailraceError as exc:
        return {"id": answer and answer.id, "events": events, "error": told(exc)}
    return {
        "id": answer.id,
        "events": events,
        "left": left,
        "result": result,
        "cursor": answer.cursor,
    }


async def alone(run: dict[str, Any]) -> dict[str, Any]:
    async with AsyncTailrace(**options(run)) as client:
        return await read(client, run)


def read_sync(client: Tailrace, run: dict[str, Any]) -> dict[str, Any]:
    """`read`, without an event loop."""
    events: list[dict[str, Any]] = []
    answer: Answer | None = None
    try:
        if "id" in run:
            answer = client.attach(run["id"], run.get("cursor"))
        else:
            answer = client.generate(**run["body"])
        for event in answer:
            events.append(event_of(event))
            if "clock" in run:
                run["clock"].passed("after_events", len(events))
            if len(events) == run.get("cancelAt"):
                answer.cancel()
            if len(events) == run.get("upto"):
                break
        left = answer.cursor
        result = result_of(answer.result())
    except TailraceError as exc:
        return {"id": answer and answer.id, "events": events, "error": told(exc)}
    return {
        "id": answer.id,
        "events": events,
        "left": left,
        "result": result,
        "cursor": answer.cursor,
    }


def alone_sync(run: dict[str, Any]) -> dict[str, Any]:
    with Tailrace(**options(run)) as client:
        return read_sync(client, run)


def do_sync(asked: dict[str, Any]) -> Any:
    runs = asked["runs"] if asked["op"] == "each" else []
    if asked["op"] == "shared":  # a client of one thread: one reading after the other
        with Tailrace(**options(asked["client"])) as client:
            return [read_sync(client, run) for run in asked["runs"]]
    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(alone_sync, runs))


async def do(asked: dict[str, Any]) -> Any:
    if asked["op"] == "each":
        return await asyncio.gather(*(alone(run) for run in asked["runs"]))
    async with AsyncTailrace(**options(asked["client"])) as client:
        return await asyncio.gather(*(read(client, run) for run in asked["runs"]))


def serve() -> None:
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        value = do_sync(asked) if "sync" in sys.argv else asyncio.run(do(asked))
        sys.stdout.write(json.dumps({"value": value}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
