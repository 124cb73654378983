"""A model, a server and whoever named things, against the terminal of the person who looks at them.

A terminal obeys what it is sent: OSC 52 writes to its clipboard, OSC 0 sets its title, CSI 2J
clears it, and most know all of them once more as C1. What reaches it holds no control character but
line ends, tabs and what our own commands draw with.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.hostile.conftest import OwnDeployment
from tests.support.processes import Deployment
from tests.support.pty_command import on_terminal
from tests.support.upstream import Upstream

EVIL = (
    "\x1b]52;c;cm0gLXJmIH4=\x07\x1b]0;title\x1b\\\x1b[2J\x1b[1A\x9b2J\x9d52;c;aGk=\x9c"
    "\x08\x08\x7f\x00\x0e"
)
HIDDEN = "\u202egnp.exe\u200b\ufeff\u2028"  # in fields of one line also these are shown
OURS = re.compile(rb"\x1b\[2m|\x1b\[0m|\r\x1b\[K")
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def obeyed(shown: bytes) -> list[str]:
    """Return what a terminal would do something about, but for what our commands draw."""
    text = OURS.sub(b"", shown).decode().replace("\r\n", "\n")
    return OBEYED.findall(text)


# A node of ours, and a model that means ill


def said(text: str) -> bytes:
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"reasoning": "Hm " + text}}]},
        {"choices": [{"index": 0, "delta": {"content": "one\r\n\ttwo " + text}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [
            {"index": 0, "id": "c", "function": {"name": text, "arguments": "{}"}}]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]  # fmt: skip
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
async def talking(own_deployment: OwnDeployment, upstream: Upstream) -> AsyncIterator[Deployment]:
    models = f'[models.evil]\nbase_url = "{upstream.base_url}"\n'
    async with own_deployment(
        api=1, workers=1, models=models, settings={"attempts_max": "1", "log": "text"}
    ) as deployment:
        yield deployment


async def test_an_answer_cannot_drive_the_terminal(talking: Deployment, upstream: Upstream) -> None:
    upstream.raw = [said(EVIL)]

    shown, _ = await on_terminal("chat", "x", environ={"TAILRACE_URL": talking.urls[0]})

    assert obeyed(shown) == []
    assert b"one\r\n\ttwo \\x1b]52;c;" in shown  # a CRLF looks as it should
    assert "\\x9b2J" in shown.decode()


async def test_an_answer_passes_unchanged_into_a_pipe(
    talking: Deployment, upstream: Upstream
) -> None:
    upstream.raw = [said(EVIL)]

    shown, piped = await on_terminal(
        "chat", "x", environ={"TAILRACE_URL": talking.urls[0]}, pipes_answer=True
    )

    assert piped == f"one\r\n\ttwo {EVIL}\n".encode()
    assert obeyed(shown) == []
    assert b"calls \\x1b]52" in shown and b"Hm \\x1b]52" in shown


async def test_an_error_cannot_drive_the_terminal(talking: Deployment, upstream: Upstream) -> None:
    error = {"error": {"message": EVIL + HIDDEN, "type": "BadRequestError"}}
    upstream.raw = [b"data: " + json.dumps(error).encode() + b"\n\n"]

    shown, _ = await on_terminal("chat", "x", environ={"TAILRACE_URL": talking.urls[0]})

    assert obeyed(shown) == []
    assert b"failed: " in shown and b"\\x1b]52" in shown and b"\\u202e" in shown


async def test_a_log_as_text_cannot_drive_the_terminal(
    talking: Deployment, upstream: Upstream
) -> None:
    """A finish reason that nobody knows is in the worker's log."""
    finish = {"choices": [{"index": 0, "delta": {}, "finish_reason": EVIL + HIDDEN}]}
    upstream.raw = [b"data: " + json.dumps(finish).encode() + b"\n\n"]

    await on_terminal("chat", "x", environ={"TAILRACE_URL": talking.urls[0]})

    written = talking.workers[0].output.read_bytes()
    assert b"finish reason unknown" in written
    assert obeyed(written) == [] and "\u202e" not in written.decode()


# A server that is none of ours: everything it says is its own choice

COUNTS = {"total": 2, "completed": 1, "failed": 1}
GENERATION = {
    "id": "gen_" + EVIL, "status": EVIL, "model": EVIL + HIDDEN, "created_at": 1, "attempt": 1,
    "prompt": EVIL + HIDDEN,
}  # fmt: skip
WORKER = {"id": EVIL, "draining": False, "running": EVIL, "slots": EVIL, "seen_s": 1}
SCHEDULE = {
    "id": EVIL, "kind": EVIL, "cron": EVIL, "timezone": EVIL, "next_run_at": 1, "last_run_at": EVIL,
    "last_error": EVIL + HIDDEN,
}  # fmt: skip
BACKEND = {
    "name": EVIL, "state": EVIL, "in_flight": EVIL, "slots": {"number": 1, "waiting": EVIL},
    "first_token_s": {"p50": None},
}  # fmt: skip
BATCH = {
    "id": "batch_" + EVIL, "status": "failed" + EVIL + HIDDEN, "endpoint": EVIL, "created_at": 1,
    "request_counts": COUNTS, "output_file_id": "file_x", "error_file_id": "file_y",
    "errors": {"data": [{"line": 1, "message": EVIL + HIDDEN}]},
}  # fmt: skip
EVENTS = [
    {"id": "1-1", "type": "start", "attempt": 1, "model": EVIL},
    {"id": "1-2", "type": "progress", "stage": EVIL, "current": 1, "total": 2, "percentage": 50},
    {"id": "1-3", "type": "file", "name": EVIL, "url": EVIL},
    {"id": "1-4", "type": "token", "text": EVIL},
    {"id": "1-5", "type": "end", "status": "failed", "error": {"code": EVIL, "message": EVIL}},
]


def events_for(accept: str) -> web.Response:
    """The events in the form that a client asks for: it takes no other for a node's."""
    if "event-stream" in accept:
        blocks = (
            f"id: {event['id']}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n"
            for event in EVENTS
        )
        return web.Response(text="".join(blocks), content_type="text/event-stream")
    if "x-ndjson" in accept:
        lines = "".join(json.dumps(event) + "\n" for event in EVENTS)
        headers = {"X-Generation-Id": "gen_x"}
        return web.Response(text=lines, content_type="application/x-ndjson", headers=headers)
    return web.json_response({"events": EVENTS, "last_event_id": "1-5", "done": True})


@asynccontextmanager
async def evil_server(status: int = 200) -> AsyncIterator[str]:
    """A server whose every word is `EVIL`; with a status, its every answer is that error."""

    async def answer(request: web.Request) -> web.Response:
        path = request.path
        if status >= 400:
            error = {"code": EVIL, "message": EVIL + HIDDEN, "retryable": False}
            return web.json_response({"error": error}, status=status)
        if path.endswith("/content"):
            return web.Response(body=json.dumps(EVIL).encode() + b"\n" + EVIL.encode())
        accept = request.headers.get("accept", "")
        if "/events" in path or "x-ndjson" in accept:
            return events_for(accept)
        if path.endswith("/workers"):
            return web.json_response({"workers": [WORKER], "queue": {EVIL: 1}})
        if path.endswith("/schedules"):
            return web.json_response({"schedules": [SCHEDULE]})
        if "/schedules/" in path:
            return web.json_response(SCHEDULE)
        if path.endswith("/backends"):
            return web.json_response({"backends": [BACKEND]})
        if path.endswith("/models"):
            return web.json_response({"data": [{"id": EVIL + HIDDEN}]})
        if path.endswith("/batches") and request.method == "GET":
            return web.json_response({"data": [BATCH], "has_more": True})
        if "/batches" in path:
            return web.json_response(BATCH)
        if path.endswith("/files"):
            return web.json_response({"id": "file_" + EVIL})
        if path.endswith("generations") or "/sessions/" in path:
            if request.method == "GET":
                return web.json_response({"generations": [GENERATION]})
        return web.json_response(GENERATION)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


COMMANDS = [
    "tail gen_x", "cancel gen_x", "chat x", "ps", "ps --session s", "bench --prompts 1",
    "batch ls", "batch watch b", "batch cancel b", "batch results b", "batch redrive b --watch",
    "batch submit FILE", "schedules ls", "schedules show s", "schedules delete s", "models ls",
]  # fmt: skip


SILENT = ["bench --prompts 1", "schedules delete s"]  # they print nothing of the server's
REFUSED = ["chat x", "ps", "batch ls", "bench --prompts 1"]


@pytest.mark.parametrize(
    ("command", "status"),
    [*((command, 200) for command in COMMANDS), *((command, 418) for command in REFUSED)],
)
async def test_no_command_prints_control_sequences(
    command: str, status: int, tmp_path: Any
) -> None:
    (tmp_path / "lines").write_text('{"url": "/v1/generations"}\n')
    words = command.replace("FILE", str(tmp_path / "lines")).split()

    async with evil_server(status) as url:
        shown, _ = await on_terminal(*words, environ={"TAILRACE_URL": url})

    assert obeyed(shown) == []
    assert b"Traceback" not in shown, shown.decode()
    # `tail` prints events as JSON, which has its own form for a control character.
    assert re.search(rb"\\x1b]52|\\u001b]52", shown) or command in SILENT, shown


async def test_the_doctor_prints_no_control_characters(tmp_path: Any) -> None:
    async with evil_server() as url:
        models = tmp_path / "models.toml"
        place = url.replace("://", "://me:the-password@")
        models.write_text(f'[models.evil]\nbase_url = "{place}/v1"\nmodel = "absent"\n')

        shown, _ = await on_terminal("doctor", environ={"TAILRACE_MODELS": str(models)})

    assert obeyed(shown) == []
    assert b"evil" in shown and b"the-password" not in shown
