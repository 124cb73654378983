"""`tailrace batch` against a fake server that breaks connections and refuses requests."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cli.client import batch as batch_module
from cli.client import transfer
from cli.client.batch import batch, endpoint_of
from cli.client.batch_client import BatchClient
from cli.client.client import RequestRefused, ServerUnreachable
from shared.config.settings import Settings
from tailrace_client import pace
from tests.support.event_stream import block, opened
from tests.support.pieces import left_in

ID = "batch_12345678"
DONE: dict[str, Any] = {
    "id": ID, "status": "completed", "created_at": 10, "completed_at": 75,
    "endpoint": "/v1/responses", "output_file_id": "file-out00000", "error_file_id": None,
    "request_counts": {"total": 1_200, "completed": 1_200, "failed": 0}, "errors": None,
}  # fmt: skip
PROGRESS = [
    {"id": f"1-{n + 2}", "type": "progress", "stage": "in_progress", "current": n * 400,
     "total": 1_200, "percentage": 0.0}
    for n in range(4)
]  # fmt: skip
END = {"id": "1-9", "type": "end", "status": "completed", "finish_reason": "stop"}


class Server:
    """A fake server for files and batches."""

    def __init__(self) -> None:
        self.batch = dict(DONE)
        self.uploads: list[bytes] = []
        self.created: list[tuple[str, Any]] = []
        self.cursors: list[str | None] = []
        self.ranges: list[str | None] = []
        self.content = b""
        self.refusal: tuple[int, str] | None = None
        self.break_uploads = 0
        self.url = ""

    async def upload(self, request: web.Request) -> web.Response:
        if self.break_uploads:
            self.break_uploads -= 1
            await request.content.readany()
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        self.uploads.append(await request.read())
        return web.json_response({"id": "file-in000000"})

    async def create(self, request: web.Request) -> web.Response:
        self.created.append((request.headers["Idempotency-Key"], await request.read()))
        if len(self.created) < 3:
            return web.json_response({"error": {"message": "x", "code": "draining"}}, status=503)
        return web.json_response(self.batch)

    async def one(self, request: web.Request) -> web.Response:
        if request.match_info["id"] != ID:
            error = {
                "message": "no such batch",
                "type": "invalid_request_error",
                "code": "not_found",
            }
            return web.json_response({"error": error}, status=404)
        return web.json_response(self.batch)

    async def list(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [self.batch], "has_more": True})

    async def events(self, request: web.Request) -> web.StreamResponse:
        if self.refusal:
            error = {"message": "no", "code": self.refusal[1], "retryable": False}
            return web.json_response({"error": error}, status=self.refusal[0])
        cursor = request.headers.get("Last-Event-ID")
        self.cursors.append(cursor)
        events = [*PROGRESS, END]
        start = [event["id"] for event in events].index(cursor) + 1 if cursor else 0
        response = await opened(request)
        for event in events[start : start + 2]:
            await response.write(block(event))
        if start + 2 < len(events):
            assert request.transport is not None
            request.transport.close()
        return response

    async def read(self, request: web.Request) -> web.StreamResponse:
        byte_range = request.headers.get("Range")
        self.ranges.append(byte_range)
        start = int(byte_range.removeprefix("bytes=").rstrip("-")) if byte_range else 0
        rest = self.content[start:]
        response = web.StreamResponse(status=206 if byte_range else 200)
        response.content_length = len(rest)
        await response.prepare(request)
        await response.write(rest[:400_000])
        if len(rest) > 400_000:
            assert request.transport is not None
            request.transport.close()
        return response


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving(Server()) as server:
        yield server


@asynccontextmanager
async def serving(made: Server) -> AsyncIterator[Server]:
    app = web.Application(client_max_size=10**8)
    app.router.add_post("/v1/files", made.upload)
    app.router.add_get("/v1/files/{id}/content", made.read)
    app.router.add_post("/v1/batches", made.create)
    app.router.add_get("/v1/batches", made.list)
    app.router.add_get("/v1/batches/{id}", made.one)
    app.router.add_post("/v1/batches/{id}/redrive", made.create)
    app.router.add_get("/v1/batches/{id}/events", made.events)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "RETRY_PAUSE_S", 0.001)
    monkeypatch.setattr(transfer, "RETRY_PAUSE_MAX_S", 0.005)
    monkeypatch.setattr(pace, "FIRST_S", 0.001)


async def run(server: Server, action: str, **args: Any) -> int:
    """Run `batch` in a thread, because it has its own event loop."""
    defaults = {"action": action, "id": ID, "endpoint": "", "window": "24h", "watch": False}
    namespace = argparse.Namespace(
        **{**defaults, "output": None, "errors": False, "json": False, **args}
    )
    return await asyncio.to_thread(batch, Settings(url=server.url), namespace)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"custom_id":"1","url":"/v1/responses"}\n' + b"x" * 1_000_000)
    return path


async def test_a_batch_is_submitted_once_over_broken_connections(
    server: Server, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.break_uploads = 2
    assert await run(server, "submit", file=str(lines), window="2h") == 0

    (uploaded,) = server.uploads
    assert b"x" * 1_000_000 in uploaded
    assert b'name="purpose"' in uploaded and b'filename="in.jsonl"' in uploaded
    assert len({key for key, _ in server.created}) == 1
    assert json.loads(server.created[-1][1]) == {
        "input_file_id": "file-in000000", "endpoint": "/v1/responses", "completion_window": "2h",
    }  # fmt: skip
    out, err = capsys.readouterr()
    assert out == f"{ID}\n"
    assert f"tailrace batch watch {ID}" in err


async def test_watch_resumes_with_its_cursor(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(server, "watch") == 0

    assert server.cursors == [None, "1-3", "1-5"]
    out, err = capsys.readouterr()
    assert out == ""
    assert "in_progress 0/1,200 0 %" in err and "in_progress 1,200/1,200 100 %" in err
    assert "completed: 1,200 of 1,200 lines done in 1 min 05 s" in err
    assert f"results: tailrace batch results {ID}" in err


async def test_watch_of_an_old_batch_prints_how_it_ended(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refusal = (410, "expired")
    assert await run(server, "watch") == 0
    assert "completed: 1,200 of 1,200 lines done" in capsys.readouterr().err

    server.refusal = (404, "not_found")
    assert await run(server, "watch") == 2
    assert "tailrace batch ls" in capsys.readouterr().err


async def test_the_summary_says_how_it_ended_and_what_to_do(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {"total": 9, "completed": 7, "failed": 2}
    server.batch |= {
        "status": "expired",
        "error_file_id": "file-err00000",
        "request_counts": counts,
    }
    assert await run(server, "redrive", watch=True) == 1
    assert "expired: 7 of 9 lines done, 2 failed" in (output := capsys.readouterr().err)
    assert f"tailrace batch redrive {ID}" in output

    errors = [{"line": n, "message": f"bad\x1b[2J {n}"} for n in range(1, 13)]
    server.batch |= {"status": "failed", "errors": {"data": errors}}
    assert await run(server, "watch") == 1
    output = capsys.readouterr().err
    assert r"line 1: bad\x1b[2J 1" in output and "line 11" not in output and "and 2 more" in output


@pytest.mark.parametrize("action", ["redrive", "watch"])
async def test_a_batch_of_which_all_lines_failed_is_no_success(server: Server, action: str) -> None:
    server.batch |= {"request_counts": {"total": 3, "completed": 0, "failed": 3}}
    assert await run(server, action, watch=True) == 1

    server.batch |= {"request_counts": {"total": 3, "completed": 1, "failed": 2}}
    assert await run(server, action, watch=True) == 0


async def test_results_resume_at_their_byte(
    server: Server, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    server.content = bytes(range(256)) * 4_000
    path = tmp_path / "out.jsonl"
    assert await run(server, "results", output=str(path)) == 0

    assert path.read_bytes() == server.content
    assert server.ranges[0] is None and len(server.ranges) == 3
    assert left_in(tmp_path) == ["out.jsonl"]


async def test_results_that_fail_leave_no_file(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(self: BatchClient, file_id: str) -> AsyncIterator[bytes]:
        yield b"half"
        raise ServerUnreachable("gave up")

    monkeypatch.setattr(BatchClient, "content", gone)
    assert await run(server, "results", output=str(tmp_path / "out.jsonl")) == 2
    assert left_in(tmp_path) == []


async def test_results_of_a_running_batch(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.batch |= {"status": "in_progress", "output_file_id": None}
    assert await run(server, "results") == 1
    assert f"{ID} is in_progress: no results yet" in capsys.readouterr().err
    assert await run(server, "results", id="batch_none") == 2
    assert "tailrace batch ls" in capsys.readouterr().err


async def test_the_list(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(server, "ls") == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "STATUS", "ENDPOINT", "DONE", "FAILED", "AGE"]
    assert row.split()[:5] == [ID, "completed", "/v1/responses", "1200/1200", "0"]


@pytest.mark.parametrize("name", ["none.jsonl", "."])
async def test_a_file_that_cannot_be_read_is_an_error(
    server: Server, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(server, "submit", file=str(tmp_path / name)) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert server.created == []


def test_without_a_server_the_message_says_what_to_do(
    capsys: pytest.CaptureFixture[str], lines: Path
) -> None:
    for action in ("ls", "submit"):
        args = argparse.Namespace(
            action=action, file=str(lines), endpoint="", window="1h", json=False
        )
        assert batch(Settings(url="http://127.0.0.1:1"), args) == 2
        assert "tailrace up" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b'{"url":"/v1/responses"}', "/v1/responses"),
        (b'{"url":"elsewhere"}', batch_module.DEFAULT_ENDPOINT),
        (b'{"url":7}', batch_module.DEFAULT_ENDPOINT),
        (b"[]", batch_module.DEFAULT_ENDPOINT),
        (b"\xff", batch_module.DEFAULT_ENDPOINT),
        (b"[" * 100_000, batch_module.DEFAULT_ENDPOINT),
        (b"", batch_module.DEFAULT_ENDPOINT),
    ],
)
def test_the_endpoint_is_that_of_the_first_line(
    tmp_path: Path, first: bytes, expected: str
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(first + b"\n{}\n")
    assert endpoint_of(path) == expected


def test_a_missing_key_names_the_variable() -> None:
    assert "TAILRACE_KEY" in batch_module._advice(
        RequestRefused(401, "unauthorized", "a key is needed")
    )
