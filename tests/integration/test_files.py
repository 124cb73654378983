"""Uploads against real nodes: large, slow, broken off, one owner's, and with something away."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.edge import transfer_limit as turns
from api.edge import transfer_rate
from api.edge.turn_queue import TurnQueue, TurnTicket
from shared.config.settings import Settings
from shared.files.objects import ObjectStore
from tests.support.footprint import MB, connections, rss_bytes
from tests.support.local_node import LocalNode, serve_here
from tests.support.processes import Deployment, run_role
from tests.support.raw_client import RawClient
from tests.support.raw_wire import raw_connection, stopped_connection
from tests.support.redis_server import RedisServer
from tests.support.uploads import HEAD, MULTIPART, TAIL, form, lying, stream_form
from tests.support.wait import until

FILE_MAX = 60 * MB
LARGE = 57 * MB
GZIP = {"Content-Encoding": "gzip"}
GROWTH_MAX = 12 * MB  # a few parts on their way, and what the allocator keeps
SMALL = 5_000
FILES = "/v1/files"


def openai_code(body: bytes) -> str:
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["code"])


def head(*headers: str) -> bytes:
    kind = f"Content-Type: {MULTIPART['Content-Type']}"
    lines = ["POST /v1/files HTTP/1.1", "Host: localhost", kind, *headers, "", ""]
    return "\r\n".join(lines).encode()


async def status_of(url: str, raw: bytes) -> int:
    """Send raw bytes, which need not be a whole request, and return the status of the answer."""
    async with raw_connection(url) as (reader, writer):
        writer.write(raw)
        async with asyncio.timeout(15):
            return int((await reader.readline()).split()[1])


@pytest.fixture(scope="module")
async def deployment() -> AsyncIterator[Deployment]:
    settings = {"file_bytes_max": str(FILE_MAX), "api_keys": "key-a:ann,key-b:bob"}
    async with Deployment(
        api=1, workers=0, settings=settings, is_waiting_for_workers=False
    ) as deployment:
        yield deployment


@pytest.fixture
async def ann(deployment: Deployment) -> AsyncIterator[RawClient]:
    async with RawClient(deployment.urls[0], key="key-a") as raw_client:
        yield raw_client


@pytest.fixture
async def bob(deployment: Deployment) -> AsyncIterator[RawClient]:
    async with RawClient(deployment.urls[0], key="key-b") as raw_client:
        yield raw_client


async def upload_small(api: RawClient) -> str:
    answer = await api.call("POST", FILES, raw=form(b"x" * 10), headers=MULTIPART)
    assert answer.status == 200, answer.body
    return str(answer.json()["id"])


async def test_a_large_file_is_streamed_and_never_whole_in_memory(
    deployment: Deployment, ann: RawClient
) -> None:
    await upload_small(ann)
    pid, before = deployment.api[0].pid, rss_bytes(deployment.api[0].pid)
    most = before

    async def watched() -> AsyncIterator[bytes]:
        nonlocal most
        async for piece in stream_form(LARGE):
            most = max(most, rss_bytes(pid))
            yield piece

    made = await ann.call("POST", FILES, raw=watched(), headers=MULTIPART)
    assert made.status == 200, made.body
    assert made.json()["bytes"] == LARGE
    assert most - before < GROWTH_MAX

    read = await ann.get(f"{FILES}/{made.json()['id']}/content")
    assert (len(read.body), read.body.count(b"x")) == (LARGE, LARGE)
    assert rss_bytes(pid) - before < GROWTH_MAX
    assert (await ann.call("DELETE", f"{FILES}/{made.json()['id']}")).status == 200


async def test_a_too_large_upload_is_refused_by_its_length_and_while_it_arrives(
    deployment: Deployment, ann: RawClient
) -> None:
    before = lying(deployment.directory / "files")
    size = FILE_MAX + 1_000_000
    told = head("Authorization: Bearer key-a", f"Content-Length: {size}")
    assert await status_of(ann.url, told) == 413

    told_late = await ann.call("POST", FILES, raw=stream_form(size), headers=MULTIPART)
    assert (told_late.status, openai_code(told_late.body)) == (413, "body_too_large")
    assert lying(deployment.directory / "files") == before


async def test_an_upload_with_content_encoding_is_stored_decoded(ann: RawClient) -> None:
    data = b'{"custom_id": "a"}' * 20_000
    encoded = gzip.compress(form(data))

    made = await ann.call("POST", FILES, raw=encoded, headers=MULTIPART | GZIP)

    assert made.status == 200, made.body
    assert (await ann.get(f"{FILES}/{made.json()['id']}/content")).body == data
    assert (await ann.call("DELETE", f"{FILES}/{made.json()['id']}")).status == 200


async def test_an_encoded_upload_is_bounded_by_its_decoded_bytes(
    deployment: Deployment, ann: RawClient
) -> None:
    before = lying(deployment.directory / "files")
    bomb = gzip.compress(form(b"x" * (FILE_MAX + 1)), 1)

    refused = [
        await ann.call("POST", FILES, raw=raw, headers=MULTIPART | {"Content-Encoding": coding})
        for raw, coding in (
            (bomb, "gzip"),
            (gzip.compress(form(b"x"))[:-9], "gzip"),
            (form(b"x"), "gzip"),
            (form(b"x"), "br"),
        )
    ]

    assert [(each.status, openai_code(each.body)) for each in refused] == [
        (413, "body_too_large"),
        (400, "invalid_http"),
        (400, "invalid_http"),
        (415, "unsupported_media_type"),
    ]
    assert lying(deployment.directory / "files") == before


async def test_another_owners_file_cannot_be_listed_read_or_deleted(
    ann: RawClient, bob: RawClient
) -> None:
    file_id = await upload_small(ann)

    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = await bob.call(method, f"{FILES}/{file_id}{path}")
        assert (answer.status, openai_code(answer.body)) == (404, "not_found")
        nobody = await bob.call(method, f"{FILES}/{file_id}{path}", anonymous=True)
        assert (nobody.status, openai_code(nobody.body)) == (401, "unauthorized")
    assert (await bob.get(FILES)).json()["data"] == []
    assert (await bob.get(f"{FILES}?after={file_id}")).status == 404
    assert (await ann.get(f"{FILES}/{file_id}/content")).body == b"x" * 10


async def test_an_upload_whose_client_hangs_up_leaves_no_object(
    deployment: Deployment, ann: RawClient
) -> None:
    directory = deployment.directory / "files"
    before, listed = lying(directory), (await ann.get(FILES)).json()["data"]
    async with raw_connection(ann.url) as (_, writer):
        writer.write(head("Authorization: Bearer key-a", f"Content-Length: {LARGE}") + HEAD)
        for _ in range(40):
            writer.write(b"x" * 100_000)
            await writer.drain()
        await until(lambda: any("#" in name for name in lying(directory)), 10, "being written")
        assert (await ann.get(FILES)).json()["data"] == listed
        writer.transport.abort()

    await until(lambda: lying(directory) == before, 10, "what was half written is gone")
    await until(lambda: connections(deployment.api[0].port) <= 1, 10, "the connection is let go")
    assert (await ann.get(FILES)).json()["data"] == listed


async def test_expect_100_continue_is_answered(ann: RawClient) -> None:
    raw = form(b"x" * SMALL)
    async with raw_connection(ann.url) as (reader, writer):
        length = f"Content-Length: {len(raw)}"
        writer.write(head("Authorization: Bearer key-a", length, "Expect: 100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(raw)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    assert await status_of(ann.url, head(length, "Expect: 100-continue")) == 401


PART = b'--b0undary\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n'
NO_FORM, WRONG_PART = "invalid_multipart", "invalid_request"
HOSTILE = {
    "nothing": (b"", NO_FORM),
    "no form": (b"hello" * 1_000, NO_FORM),
    "no end": (HEAD + b"x" * SMALL, NO_FORM),
    "line ends for ever": (b"\r\n" * 100_000, NO_FORM),
    "a header for ever": (b"--b0undary\r\nA: " + b"x" * 100_000, NO_FORM),
    "headers for ever": (b"--b0undary\r\n" + b"A: x\r\n" * 10_000, NO_FORM),
    "parts for ever": (PART * 9_999, NO_FORM),
    "a purpose for ever": (HEAD.partition(b"batch")[0] + b"x" * 100_000 + TAIL, WRONG_PART),
    "another purpose": (form(b"x").replace(b"batch", b"theft"), WRONG_PART),
    "two files": (HEAD + b"x\r\n" + HEAD.partition(b"batch\r\n")[2] + b"x" + TAIL, WRONG_PART),
    "an empty file": (form(b""), WRONG_PART),
    "a NUL for a name": (form(b"x").replace(b"a.jsonl", b"\0"), ""),
    "a path for a name": (form(b"x").replace(b"a.jsonl", b"../../../tmp/x"), ""),
    "half a character": (form(b"x").replace(b"a.jsonl", b"\xe2\x82"), ""),
    "a long name": (form(b"x").replace(b"a.jsonl", b"n" * 3_000), ""),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_malformed_upload_is_refused_with_a_message(
    deployment: Deployment, ann: RawClient, what: str
) -> None:
    raw, code = HOSTILE[what]
    before = lying(deployment.directory / "files")

    answer = await ann.call("POST", FILES, raw=raw, headers=MULTIPART)

    assert answer.status == (400 if code else 200), answer.body
    if not code:
        assert "/" not in answer.json()["filename"]
        read = await ann.get(f"{FILES}/{answer.json()['id']}/content")
        assert (read.status, read.body) == (200, b"x")
    else:
        assert openai_code(answer.body) == code
        assert lying(deployment.directory / "files") == before
    assert '"level": "error"' not in deployment.api[0].output.read_text()
    assert "multipart" not in deployment.api[0].output.read_text()


@pytest.fixture
async def local_node(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[LocalNode]:
    settings = Settings(redis_url=redis_server.url, files_url=str(tmp_path / "files"))
    async with serve_here(settings) as local_node:
        yield local_node


@pytest.fixture
async def api(local_node: LocalNode) -> AsyncIterator[RawClient]:
    async with RawClient(local_node.url) as raw_client:
        yield raw_client


async def test_a_draining_node_takes_no_upload(local_node: LocalNode, api: RawClient) -> None:
    file_id = await upload_small(api)
    local_node.node.is_draining = True

    answer = await api.call("POST", FILES, raw=form(b"x"), headers=MULTIPART)
    assert (answer.status, openai_code(answer.body)) == (503, "draining")
    assert "Retry-After" in answer.headers
    assert (await api.get(f"{FILES}/{file_id}/content")).body == b"x" * 10


async def test_a_draining_node_waits_for_an_upload_until_the_drain_time() -> None:
    async with Deployment(
        api=1, workers=0, settings={"drain_s": "2"}, is_waiting_for_workers=False
    ) as deployment:
        node, raw = deployment.api[0], form(b"x" * SMALL)
        request = head(f"Content-Length: {len(raw)}") + raw
        async with (
            raw_connection(node.url) as (quick, quick_out),
            raw_connection(node.url) as (stuck, stuck_out),
        ):
            for writer in (quick_out, stuck_out):
                writer.write(request[:-100])
            directory = deployment.directory / "files"
            await until(lambda: len(lying(directory)) == 2, 10, "both are being written")
            node.terminate()
            await until(lambda: "api draining" in node.stderr(), 10, "draining")
            quick_out.write(request[-100:])
            assert (await quick.readline()).startswith(b"HTTP/1.1 200 ")
            assert (await stuck.readline()).startswith(b"HTTP/1.1 503 ")
            assert await node.ended(10) == 0
        assert len(lying(directory)) == 1
        assert '"level": "error"' not in node.output.read_text()


async def test_a_draining_node_breaks_a_download_off_after_the_drain_time() -> None:
    async with Deployment(
        api=1, workers=0, settings={"drain_s": "1"}, is_waiting_for_workers=False
    ) as deployment:
        node = deployment.api[0]
        async with RawClient(node.url) as api:
            made = await api.call("POST", FILES, raw=stream_form(20 * MB), headers=MULTIPART)
        async with stopped_connection(node.url) as (reader, writer):
            path = f"{FILES}/{made.json()['id']}/content"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            node.terminate()
            assert await node.ended(10) == 0
        assert "file broken off" in node.output.read_text()
        assert '"level": "error"' not in node.output.read_text()


async def test_an_unreachable_object_store_is_503(
    local_node: LocalNode, api: RawClient, tmp_path: Path
) -> None:
    file_id = await upload_small(api)
    os.rename(tmp_path / "files", tmp_path / "away")
    (tmp_path / "files").write_bytes(b"")

    refused = await api.call("POST", FILES, raw=form(b"x" * SMALL), headers=MULTIPART)
    assert (refused.status, openai_code(refused.body)) == (503, "unavailable")
    for answer in (await api.get(FILES), await api.get(f"{FILES}/{file_id}")):
        assert answer.status == 200

    (tmp_path / "files").unlink()
    os.rename(tmp_path / "away", tmp_path / "files")
    assert (await api.get(f"{FILES}/{file_id}/content")).status == 200
    (tmp_path / "files" / "files" / file_id).unlink()
    gone = await api.get(f"{FILES}/{file_id}/content")
    assert (gone.status, openai_code(gone.body)) == (404, "not_found")


async def test_a_silent_upload_is_ended(
    local_node: LocalNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_rate, "RATE_WINDOW_S", 0.2)
    monkeypatch.setattr(turns, "RATE_CHECK_S", 0.05)
    raw = head("Content-Length: 5000") + HEAD + b"x" * 100

    assert await status_of(local_node.url, raw) == 408
    assert lying(tmp_path / "files") == []


async def test_uploads_at_once_are_bounded(
    local_node: LocalNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other uploads wait, and each starts when another upload has ended."""
    tickets: list[TurnTicket] = []
    running = most = 0
    may_end = asyncio.Event()
    enter, put = TurnQueue.enter, ObjectStore.put

    def counted_enter(self: TurnQueue, ticket: TurnTicket) -> None:
        tickets.append(ticket)
        enter(self, ticket)

    async def counted_put(self: ObjectStore, name: str, data: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await may_end.wait()
            await put(self, name, data)
        finally:
            running -= 1

    monkeypatch.setattr(TurnQueue, "enter", counted_enter)
    monkeypatch.setattr(ObjectStore, "put", counted_put)
    async with asyncio.TaskGroup() as tasks:
        made = [tasks.create_task(upload_one(local_node.url)) for _ in range(40)]

        def has_turns() -> bool:
            return len(tickets) == 40 and running == sum(ticket.is_running for ticket in tickets)

        await until(has_turns, 15, "each upload has its turn or waits")
        may_end.set()
    assert len({task.result() for task in made}) == 40
    assert most == turns.UPLOADS_AT_ONCE


async def upload_one(url: str) -> Any:
    async with RawClient(url) as api:
        return await upload_small(api)


async def test_a_client_that_leaves_a_download_stops_the_reading_of_the_object(
    local_node: LocalNode, api: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await api.call("POST", FILES, raw=stream_form(20 * MB), headers=MULTIPART)
    given, read = [0], ObjectStore.read

    async def counted(self: ObjectStore, name: str, start: int = 0) -> AsyncIterator[bytes]:
        try:
            async for piece in read(self, name, start):
                given[0] += len(piece)
                yield piece
        finally:
            ended.set()

    ended = asyncio.Event()
    monkeypatch.setattr(ObjectStore, "read", counted)
    async with stopped_connection(local_node.url) as (reader, writer):
        path = f"{FILES}/{made.json()['id']}/content"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
    async with asyncio.timeout(10):
        await ended.wait()
    assert given[0] < 10 * MB


async def test_a_download_that_cannot_be_finished_is_broken_off(
    local_node: LocalNode, api: RawClient, tmp_path: Path
) -> None:
    made = await api.call("POST", FILES, raw=stream_form(3 * MB), headers=MULTIPART)
    path = tmp_path / "files" / "files" / made.json()["id"]
    os.truncate(path, MB)

    answer = await api.get(f"{FILES}/{path.name}/content")
    assert answer.is_broken and len(answer.body) <= MB


@pytest.mark.parametrize("role", ["api", "jobs"])
async def test_an_unusable_file_location_is_reported_at_start(
    redis_server: RedisServer, role: str
) -> None:
    settings = {
        "TAILRACE_REDIS_URL": redis_server.url, "TAILRACE_PORT": "0",
        "TAILRACE_FILES_URL": "/dev/null/files",
    }  # fmt: skip
    code, said = await run_role(role, settings)

    assert code == 2
    assert len(said.splitlines()) == 1 and "TAILRACE_FILES_URL" in said


async def test_without_redis_an_upload_is_refused(deployment: Deployment, ann: RawClient) -> None:
    """Last in this file: the server is started again, and all connections are new."""
    before = lying(deployment.directory / "files")
    assert deployment.server is not None
    deployment.server.kill()
    for answer in (
        await ann.call("POST", FILES, raw=form(b"x"), headers=MULTIPART),
        await ann.get(FILES),
        await ann.get(f"{FILES}/file-0123456789"),
        await ann.get(f"{FILES}/file-0123456789/content"),
        await ann.call("DELETE", f"{FILES}/file-0123456789"),
    ):
        assert (answer.status, openai_code(answer.body)) == (503, "unavailable")
        assert "Retry-After" in answer.headers
    assert lying(deployment.directory / "files") == before
