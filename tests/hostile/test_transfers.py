"""Transfers that drip or are not read: they hold up nobody else, and are over in a bounded time.

A node in this process, with two keys, and with the window in which a pace is measured made short.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.config.settings import Settings
from tests.support.local_node import LocalNode, serve_here
from tests.support.raw_client import RawClient
from tests.support.raw_wire import raw_connection, stopped_connection
from tests.support.redis_server import RedisServer
from tests.support.uploads import HEAD, MULTIPART, form, lying, stream_form
from tests.support.wait import until

MB = 1_000_000
FILES = "/v1/files"
WINDOW_S = 0.5
TURNS, OWNER_TURNS = 8, 4  # of the node, whose default is 16, and of one owner
DRIPPING = TURNS + 1
SOON_S = 5.0  # an honest upload of a megabyte, on a busy machine
OVER_S = 20.0
KEYS = {"ann": "a-key-that-is-anns", "bob": "a-key-that-is-bobs"}
Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(params=["keys", "anonymous"])
async def local_node(
    request: pytest.FixtureRequest,
    redis_server: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[LocalNode]:
    for name in ("RATE_WINDOW_S", "CONTENDED_RATE_WINDOW_S"):
        monkeypatch.setattr(f"api.edge.transfer_rate.{name}", WINDOW_S)
    monkeypatch.setattr("api.edge.transfer_limit.RATE_CHECK_S", 0.1)
    is_keyed = request.param == "keys"
    settings = Settings(
        redis_url=redis_server.url,
        files_url=str(tmp_path / "files"),
        api_keys=",".join(f"{key}:{owner}" for owner, key in KEYS.items()) if is_keyed else "",
    )
    async with serve_here(settings) as local_node:
        # The line is the same for any number of turns; more peers would only be slower.
        for transfers in (local_node.node.uploads, local_node.node.downloads):
            monkeypatch.setattr(transfers._queue, "turns_max", TURNS)
        yield local_node


@pytest.fixture
async def bob(local_node: LocalNode) -> AsyncIterator[RawClient]:
    async with RawClient(local_node.url, key=KEYS["bob"]) as raw_client:
        yield raw_client


def head_of_upload(owner: str) -> bytes:
    lines = [
        "POST /v1/files HTTP/1.1", "Host: localhost", f"Authorization: Bearer {KEYS[owner]}",
        f"Content-Type: {MULTIPART['Content-Type']}", "Content-Length: 100000000", "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode()


async def dripped(wire: Wire, piece: bytes) -> bytes:
    """Send a byte whenever no answer came for a tenth of a second; return the answer."""
    reader, writer = wire
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                return await reader.readuntil(b"\r\n\r\n") + await reader.read(4_096)
        writer.write(piece)


# What drips: the file, the fields before it, or nothing at all after an announcement.
@pytest.mark.parametrize(
    ("begun", "piece"),
    [(HEAD, b"x"), (HEAD[: HEAD.index(b"batch")], b"b"), (b"", b"")],
    ids=["file", "field", "nothing"],
)
async def test_slow_uploads_are_ended_and_lock_nobody_out(
    local_node: LocalNode, bob: RawClient, tmp_path: Path, begun: bytes, piece: bytes
) -> None:
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        wires: list[Wire] = [
            await stack.enter_async_context(raw_connection(local_node.url)) for _ in range(DRIPPING)
        ]
        for _, writer in wires:
            writer.write(head_of_upload("ann") + begun)
        dripping = [tasks.create_task(dripped(wire, piece)) for wire in wires]
        begun_s = time.monotonic()

        answer = await bob.call("POST", FILES, raw=form(b"x" * MB), headers=MULTIPART)
        assert answer.status == 200, answer.body
        assert time.monotonic() - begun_s < SOON_S

        async with asyncio.timeout(OVER_S):
            refused = [await task for task in dripping]
    for said in refused:
        assert said.startswith(b"HTTP/1.1 408 "), said
        error = json.loads(said.partition(b"\r\n\r\n")[2])["error"]
        assert error["code"] == "request_timeout"
        assert "4096 bytes a second" in error["message"]
    assert len(lying(tmp_path / "files")) == 1


async def test_unread_downloads_are_broken_off_and_lock_nobody_out(
    local_node: LocalNode, bob: RawClient
) -> None:
    async with (
        RawClient(local_node.url, key=KEYS["ann"]) as ann,
        contextlib.AsyncExitStack() as stack,
    ):
        made = await ann.call("POST", FILES, raw=stream_form(20 * MB), headers=MULTIPART)
        mine = await bob.call("POST", FILES, raw=form(b"x" * MB), headers=MULTIPART)
        asked = (
            f"GET {FILES}/{made.json()['id']}/content HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {KEYS['ann']}\r\n\r\n"
        ).encode()
        wires: list[Wire] = [
            await stack.enter_async_context(stopped_connection(local_node.url)) for _ in range(10)
        ]
        for _, writer in wires:
            writer.write(asked)
        await wires[0][0].readuntil(b"\r\n\r\n")
        begun_s = time.monotonic()

        answer = await bob.get(f"{FILES}/{mine.json()['id']}/content")
        assert (answer.status, len(answer.body)) == (200, MB)
        assert time.monotonic() - begun_s < SOON_S
        turns = local_node.node.downloads
        await until(lambda: not turns._running, OVER_S, "every download is over")
        for reader, _ in wires:
            assert await length_of(reader) < 20 * MB


async def length_of(reader: asyncio.StreamReader) -> int:
    """How much still comes before the connection is broken off."""
    count = 0
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(OVER_S):
            while piece := await reader.read(65_536):
                count += len(piece)
    return count


async def test_too_many_transfers_at_once_get_an_error_of_their_own(
    local_node: LocalNode, bob: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.edge.transfer_limit.TRANSFER_TURN_WAIT_S", 0.2)
    # The others must keep their turns meanwhile, however busy the machine is.
    for name in ("RATE_WINDOW_S", "CONTENDED_RATE_WINDOW_S"):
        monkeypatch.setattr(f"api.edge.transfer_rate.{name}", OVER_S)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(DRIPPING):
            wire = await stack.enter_async_context(raw_connection(local_node.url))
            wire[1].write(head_of_upload("bob") + HEAD)
        # Without credentials everybody is one owner, who may have every turn of the node.
        most = OWNER_TURNS if local_node.node.authenticator.is_configured else TURNS
        await until(lambda: len(local_node.node.uploads._running) == most, 5, "the turns are taken")
        answer = await bob.call("POST", FILES, raw=form(b"x"), headers=MULTIPART)

    error = answer.json()["error"]
    assert (answer.status, error["code"]) == (429, "too_many_transfers")
    assert "transfer" in error["code"] and "log" not in error["message"]
    assert "Retry-After" in answer.headers
