"""What the terminal commands print, and how they resume, with a fake server."""

from __future__ import annotations

import argparse
import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from cli.client.client import Client, RequestRefused, ServerUnreachable
from cli.client.terminal import (
    JsonPrinter,
    Printer,
    _advice,
    _chat,
    _ps,
    _tail,
    chat,
    jobs_line,
    state_of,
    table,
)
from shared.config.settings import Settings
from tests.support.event_stream import block, opened

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(*events: dict[str, Any], is_tty: bool = False) -> tuple[str, str, int]:
    out, err = (Terminal(), Terminal()) if is_tty else (io.StringIO(), io.StringIO())
    printer = Printer(out, err)
    for event in events:
        printer.show(event)
    printer.close()
    return out.getvalue(), err.getvalue(), printer.exit_code


START = {"id": "1-1", "type": "start", "attempt": 1, "model": "demo"}
DONE = {"id": "1-9", "type": "end", "status": "completed", "finish_reason": "stop"}


def token(text: str, event_id: str = "1-2") -> dict[str, Any]:
    return {"id": event_id, "type": "token", "text": text}


# Printing


def test_standard_output_gets_only_the_answer() -> None:
    progress = {"type": "progress", "stage": "pdf", "percentage": 6.0}
    out, err, exit_code = printed(
        START, {"type": "reasoning", "text": "Hm"}, token("Hel"), progress, token("lo"), DONE
    )

    assert (out, exit_code) == ("Hello\n", 0)
    assert err == "Hm\n[pdf: 6 %]\n"


def test_on_a_terminal_reasoning_is_dim_and_notes_have_their_own_line() -> None:
    out, err, _ = printed(
        {"type": "reasoning", "text": "Hm"}, token("Hel"), {"type": "reset"}, token("Hello"),
        DONE, is_tty=True,
    )  # fmt: skip

    assert out == "Hel\nHello\n"
    assert err == "\x1b[2mHm\x1b[0m\n\x1b[2m[the answer starts again]\x1b[0m\n"


def test_a_failure_is_exit_code_1_and_says_why() -> None:
    error = {"code": "upstream_error", "message": "no answer", "retryable": True}
    _, err, exit_code = printed(token("x"), {"type": "end", "status": "failed", "error": error})

    assert exit_code == 1
    assert "failed: no answer (upstream_error)" in err


def test_without_an_end_the_exit_code_is_1() -> None:
    assert printed(token("x"))[2] == 1


def test_unknown_events_are_ignored() -> None:
    assert printed({"type": "tomorrow"}, DONE) == ("", "", 0)


def test_columns_are_as_wide_as_their_cells() -> None:
    assert table(["A", "B"], [["long", "1"], ["x", "22"]]) == "A     B\nlong  1\nx     22"


# Requests


@asynccontextmanager
async def local_node(**handlers: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/generations", handlers.get("create", accept))
    for name, path in (
        ("events", "/v1/generations/{id}/events"),
        ("generations", "/v1/generations"),
        ("workers", "/v1/workers"),
        ("backends", "/v1/backends"),
    ):
        if name in handlers:
            app.router.add_get(path, handlers[name])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def accept(request: web.Request) -> web.Response:
    return web.json_response({"id": "gen_12345678"}, status=202)


def refusing(status: int, code: str, *, is_retryable: bool = False) -> Handler:
    async def refuse(request: web.Request) -> web.Response:
        error = {"code": code, "message": "no", "retryable": is_retryable}
        return web.json_response({"error": error}, status=status)

    return refuse


def client_of(url: str, **options: Any) -> Client:
    """Return a client without pauses."""
    return Client(url, random=lambda: 0.0, **options)


class Log:
    """Serves a log from the cursor on; breaks the connection after `break_after` events."""

    def __init__(self, *events: dict[str, Any], break_after: int) -> None:
        self.events = events
        self.break_after = break_after
        self.cursors: list[str | None] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        cursor = request.headers.get("Last-Event-ID")
        self.cursors.append(cursor)
        ids = [event["id"] for event in self.events]
        start = ids.index(cursor) + 1 if cursor else 0
        if start == len(ids):
            return web.Response(status=204)
        response = await opened(request)
        await response.write(b":\n\n")  # a heartbeat
        for event in self.events[start : start + self.break_after]:
            await response.write(block(event))
        if start + self.break_after < len(ids):
            await response.write(b"id: 1-")
            assert request.transport is not None
            request.transport.close()
        return response


LOG = (START, token("a", "1-2"), token("b", "1-3"), token("c", "1-4"), DONE)


async def test_a_stream_is_resumed_with_its_cursor() -> None:
    log, troubles = Log(*LOG, break_after=2), list[str]()
    async with local_node(events=log.answer) as url, client_of(url) as client:
        found = [event async for event in client.follow("gen_12345678", on_trouble=troubles.append)]

    assert found == list(LOG)
    assert log.cursors == [None, "1-2", "1-4"]
    assert len(troubles) == 2


async def test_a_stream_after_the_end_is_empty() -> None:
    async with local_node(events=Log(*LOG, break_after=9).answer) as url, client_of(url) as client:
        assert [event async for event in client.follow("gen_12345678", "1-9")] == []


async def test_a_reset_clears_the_cursor() -> None:
    cursors: list[str | None] = []

    async def events(request: web.Request) -> web.StreamResponse:
        cursors.append(request.headers.get("Last-Event-ID"))
        response = await opened(request)
        event = DONE if len(cursors) > 1 else {"id": "0-0", "type": "reset", "reason": "x"}
        await response.write(block(event))
        return response

    async with local_node(events=events) as url, client_of(url) as client:
        found = [event["type"] async for event in client.follow("gen_12345678", "7-7")]

    assert found == ["reset", "end"]
    assert cursors == ["7-7", None]


@pytest.mark.parametrize(("status", "code"), [(404, "not_found"), (410, "expired")])
async def test_a_final_refusal_is_not_repeated(status: int, code: str) -> None:
    async with local_node(events=refusing(status, code)) as url, client_of(url) as client:
        with pytest.raises(RequestRefused) as caught:
            await anext(client.follow("gen_12345678"))

    assert (caught.value.status, caught.value.code) == (status, code)


async def test_the_client_gives_up_after_its_patience() -> None:
    busy = refusing(503, "unavailable", is_retryable=True)
    async with local_node(events=busy) as url, client_of(url, patience_s=0.02) as client:
        with pytest.raises(ServerUnreachable, match="gave up"):
            await anext(client.follow("gen_12345678"))


async def test_a_prompt_is_repeated_with_one_key() -> None:
    keys: list[str] = []

    async def create(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) < 3:
            return await refusing(503, "draining", is_retryable=True)(request)
        return await accept(request)

    async with local_node(create=create) as url, client_of(url) as client:
        await client.create({"prompt": "x"}, "k")

    assert keys == ["k", "k", "k"]


async def test_chat_prints_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    async with local_node(events=Log(*LOG, break_after=9).answer) as url, client_of(url) as client:
        assert await _chat(client, {"prompt": "x"}) == 0

    assert capsys.readouterr().out == "abc\n"


async def test_tail_prints_one_event_on_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    async with local_node(events=Log(*LOG, break_after=9).answer) as url, client_of(url) as client:
        assert await _tail(client, "gen_12345678", "") == 0

    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [event["id"] for event in LOG]
    assert json.loads(lines[-1])["type"] == "end"


async def test_tail_on_a_terminal_begins_with_id_and_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    log = [START, token("wipe\x1b[2J"), DONE]
    async with local_node(events=Log(*log, break_after=9).answer) as url, client_of(url) as client:
        assert await _tail(client, "gen_12345678", "") == 0

    lines = out.getvalue().splitlines()
    assert lines[0] == '1-1      start      {"attempt": 1, "model": "demo"}'
    assert len(lines) == 3 and "\x1b" not in out.getvalue()


@pytest.mark.parametrize(
    ("seen_s", "is_draining", "state"),
    [(0.4, False, "working"), (0.4, True, "draining"), (30.0, False, "dead"), (30.0, True, "dead")],
)
def test_ps_says_when_a_worker_is_dead(seen_s: float, is_draining: bool, state: str) -> None:
    assert state_of({"seen_s": seen_s, "draining": is_draining}) == state


async def test_ps_shows_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    async def generations(request: web.Request) -> web.Response:
        item = {
            "id": "gen_1", "status": "running", "model": "demo", "created_at": 0, "attempt": 1,
            "prompt": "wipe\x1b[2J " + "x" * 99,
        }  # fmt: skip
        return web.json_response({"generations": [item]})

    async def workers(request: web.Request) -> web.Response:
        worker = {"id": "w", "slots": 9, "running": 1, "draining": False, "seen_s": 0.4}
        return web.json_response({"workers": [worker], "queue": {"interactive": 2}})

    async def backends(request: web.Request) -> web.Response:
        slots = {"number": 2, "held": 2, "waiting": 58}
        full = {"name": "llama", "state": "closed", "in_flight": 2, "slots": slots}
        away = {"name": "gpu", "state": "open", "in_flight": 0, "slots": None}
        times = {"first_token_s": {"p50": 0.254}}, {"first_token_s": {"p50": None}}
        return web.json_response({"backends": [full | times[0], away | times[1]]})

    handlers = {"generations": generations, "workers": workers, "backends": backends}
    async with local_node(**handlers) as url, client_of(url) as client:
        assert await _ps(client, "") == 0

    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "1/9" in out
    assert re.search(r"^llama +closed +2/2 +58 +0.25s$", out, re.M)
    assert re.search(r"^gpu +open +0 +- +-$", out, re.M)
    assert "queue: 2 interactive" in out


def test_without_a_server_the_message_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    args = argparse.Namespace(prompt="x", model="", session="", json=False)

    assert chat(Settings(url="http://127.0.0.1:1"), args) == 2
    assert "tailrace up" in capsys.readouterr().err


def test_an_empty_prompt_gives_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))

    assert chat(Settings(), argparse.Namespace(prompt=None, model="", session="", json=False)) == 2


def test_a_missing_key_names_the_variable() -> None:
    assert "TAILRACE_KEY" in _advice(RequestRefused(401, "unauthorized", "an API key is needed"))


async def test_a_key_that_is_no_operators_lists_no_workers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def none(request: web.Request) -> web.Response:
        return web.json_response({"generations": []})

    handlers = {"generations": none, "workers": refusing(403, "forbidden")}
    async with local_node(**handlers) as url, client_of(url) as client:
        assert await _ps(client, "") == 0

    output = capsys.readouterr().out
    assert output.startswith("ID")
    assert "operators' keys" in output


# For programs


def test_as_json_each_event_is_one_line_and_the_exit_code_is_the_same() -> None:
    out, err = io.StringIO(), io.StringIO()
    printer = JsonPrinter(out, err)
    for event in (START, token("Hel\n\x1b"), DONE):
        printer.show(event)
    printer.note("connection lost")
    printer.close()

    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        START, token("Hel\n\x1b"), DONE,
    ]  # fmt: skip
    assert "\x1b" not in out.getvalue()
    assert (err.getvalue(), printer.exit_code) == ("[connection lost]\n", 0)


async def test_ps_as_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    item = {"id": "gen_1"}

    async def generations(request: web.Request) -> web.Response:
        return web.json_response({"generations": [item]})

    async def workers(request: web.Request) -> web.Response:
        return web.json_response({"workers": [], "queue": {"later": 1}, "jobs": {}})

    async with (
        local_node(generations=generations, workers=workers) as url,
        client_of(url) as client,
    ):
        assert await _ps(client, "", is_json=True) == 0

    found = json.loads(capsys.readouterr().out)
    assert found == {"generations": [item], "workers": [], "queue": {"later": 1}, "jobs": {}}


def test_ps_says_how_far_the_jobs_role_is_behind() -> None:
    beats = {"polled": 1.2, "swept": None}
    late = {"oldest_due": "webhooks", "oldest_due_s": 75.4, "beat_s": beats}

    assert jobs_line(late) == "webhooks due for 75s, last sign 1s ago"
    assert jobs_line({"oldest_due": None, "oldest_due_s": 0.0, "beat_s": {}}) == (
        "nothing is due, no sign of the jobs role"
    )


def test_no_color_keeps_reasoning_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert "\x1b" not in printed({"type": "reasoning", "text": "Hm"}, DONE, is_tty=True)[1]
