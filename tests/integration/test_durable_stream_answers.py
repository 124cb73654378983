"""Durable Streams at a node with real sockets and a real Redis: two rules apply to one request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from shared.config.settings import Settings
from tests.support.local_node import LocalNode, serve_here
from tests.support.stream_client import Answer, StreamClient

JSON = "application/json"


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[LocalNode]:
    async with serve_here(Settings(redis_url=redis_url)) as local_node:
        yield local_node


@pytest.fixture
async def client(node: LocalNode) -> AsyncIterator[StreamClient]:
    async with StreamClient([node.url]) as stream_client:
        yield stream_client


def code_of(answer: Answer) -> str:
    return str(json.loads(answer.body)["error"]["code"])


async def test_an_event_stream_keeps_spaces_and_reads_every_line_end_as_lf(
    client: StreamClient,
) -> None:
    pieces = [b"Hello", b" world", b"  two\n one", b" ", b"\n", b"a\r\nb\rc", b"data: x"]
    await client.create("s")
    for piece in pieces:
        await client.ask("POST", "s", piece)
    await client.ask("POST", "s", stream_closed="true")

    seen = [data async for name, data in client.events("s", "-1") if name == "data"]

    assert seen[:5] == [piece.decode() for piece in pieces[:5]]
    assert seen[5:] == ["a\nb\nc", "data: x"]
    assert (await client.read("s")).body == b"".join(pieces), "other reads give the exact bytes"


async def test_a_repeat_is_a_repeat_also_when_another_has_closed_the_stream(
    client: StreamClient,
) -> None:
    await client.create("s")
    for seq in range(3):
        await client.append("s", b"%d" % seq, seq)
    closed = await client.ask("POST", "s", stream_closed="true")

    for seq, closes in ((2, False), (0, False), (2, True)):
        repeat = await client.append("s", b"%d" % seq, seq, closes=closes)
        assert (repeat.status, repeat.headers["stream-closed"]) == (204, "true")
        assert (repeat.headers["producer-seq"], repeat.offset) == ("2", closed.offset)
    for seq, epoch in ((3, 0), (0, 1)):
        refused = await client.append("s", b"new", seq, epoch=epoch)
        assert (refused.status, code_of(refused)) == (409, "stream_closed")
        assert refused.headers["stream-closed"] == "true"
    assert (await client.read("s")).body == b"012"


async def test_a_put_is_a_repeat_only_if_it_asks_for_the_state_of_closure(
    client: StreamClient,
) -> None:
    await client.create("s")
    assert (await client.create("s")).status == 200
    await client.ask("POST", "s", stream_closed="true")

    refused = await client.create("s")
    assert (refused.status, code_of(refused)) == (409, "stream_exists")
    assert (await client.create("s", stream_closed="true")).status == 200


@pytest.mark.parametrize("body", [b"{no json", b"[]", b'{"a": 1}'])
async def test_the_state_of_the_stream_comes_before_the_json_of_the_body(
    client: StreamClient, body: bytes
) -> None:
    await client.create("texts")
    await client.create("values", content_type=JSON)
    await client.create("closed", content_type=JSON, stream_closed="true")

    found = {
        path: await client.ask("POST", path, body, content_type=JSON)
        for path in ("texts", "values", "closed", "absent")
    }
    assert (found["texts"].status, code_of(found["texts"])) == (409, "content_type_mismatch")
    assert found["values"].status == (204 if body == b'{"a": 1}' else 400)
    assert (found["closed"].status, code_of(found["closed"])) == (409, "stream_closed")
    assert found["closed"].headers["stream-next-offset"]
    assert found["absent"].status == 404
