"""Reading from a chunk on: exactly, from the end, past the end, and during the end; replays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Match

from api.dialects.ai_sdk.fold import AI_SDK, RESET_STEP, join_deltas
from api.dialects.ai_sdk.routes import (
    RawPathRoute,
    begin_at_chunk,
    begin_replay,
    parse_start_index,
    read_path_name,
)
from api.hub.relay import Relay
from api.readers.http_stream import Beginning, stream
from shared.errors import NotFound, RequestError
from shared.log.events import Data, End, Progress, Reasoning, Reset, Start, Token, ToolCall, encode
from shared.log.ids import EventId
from shared.log.request import Request, encode_request
from tests.support.hub_harness import GENERATION, Client, HubHarness, make_meta, make_scope, settle

REQUEST = encode_request(Request([{"role": "user", "content": "Hi"}]))
STOP = End("completed", "stop")
FINISH = b'data: {"type":"finish","finishReason":"stop"}\n\n'
DONE = b"data: [DONE]\n\n"
AFTER_A_LOSS = 1_795_255_095_694
TAIL = b"x-workflow-stream-tail-index"


@pytest.fixture
async def hub_harness() -> AsyncIterator[HubHarness]:
    async with HubHarness() as hub_harness:
        hub_harness.log.create(request=REQUEST)
        hub_harness.log.append(Start(1, "demo"))  # after the opening, 0: chunk 1
        hub_harness.log.tokens("a", "b", "c")  # 2 and 3, 4, 5
        yield hub_harness


def end(hub_harness: HubHarness) -> None:
    hub_harness.log.append(STOP)  # 6, 7, 8


async def read(
    hub_harness: HubHarness, number: int, during: Callable[[HubHarness], None] | None = None
) -> Client:
    """Read from chunk `number` on; call `during` once the place of the chunk was found."""
    client = Client()
    meta = await hub_harness.log.meta(GENERATION)
    assert meta is not None
    found = begin_at_chunk(hub_harness.hub, number)

    async def begin(relay: Relay) -> Beginning:
        beginning = await found(relay)
        if during is not None:
            during(hub_harness)
        return beginning

    await stream(
        hub_harness.hub, make_scope(client), client.receive, client.send,  # type: ignore[arg-type]
        meta=meta, dialect=AI_SDK, begin=begin,
    )  # fmt: skip
    return client


def chunks(client: Client) -> list[dict[str, Any]]:
    assert client.status == 200 and client.is_finished
    assert client.body.endswith(DONE)
    frames = client.body.removesuffix(DONE).split(b"\n\n")[:-1]
    return [json.loads(frame.removeprefix(b"data: ")) for frame in frames]


@pytest.mark.parametrize("number", [*range(12), *range(-12, 0), 10**14, -(10**14)])
async def test_an_ended_run_is_read_from_any_chunk(hub_harness: HubHarness, number: int) -> None:
    end(hub_harness)
    whole = chunks(await read(hub_harness, 0))
    assert len(whole) == 9
    client = await read(hub_harness, number)

    assert chunks(client) == (whole[number:] or whole[-1:])
    assert client.headers[TAIL] == b"8"


@pytest.mark.parametrize("number", [0, 1, 3, 5, 6, -2])
async def test_a_running_run_is_read_up_to_its_end(hub_harness: HubHarness, number: int) -> None:
    client = await read(hub_harness, number, during=end)
    whole = chunks(await read(hub_harness, 0))

    assert client.headers[TAIL] == b"5"
    assert chunks(client) == whole[number if number >= 0 else 6 + number :]


@pytest.mark.parametrize("number", [6, 9, 20])
async def test_an_end_that_arrives_during_the_search_leaves_no_empty_answer(
    hub_harness: HubHarness, number: int
) -> None:
    """The reader has all chunks, or counts beyond them, when the end arrives."""
    meta = await hub_harness.log.meta(GENERATION)
    assert meta is not None
    async with hub_harness.hub.reading(meta) as relay:
        await settle()
        log = relay.encoded_log(AI_SDK)
        page, has_ended = hub_harness.log.page, False

        async def page_and_end(*args: Any) -> Any:
            nonlocal has_ended
            if not has_ended and log.chunks == 6:
                has_ended = True
                end(hub_harness)
            return await page(*args)

        hub_harness.log.page = page_and_end  # type: ignore[assignment, method-assign]
        beginning = await begin_at_chunk(hub_harness.hub, number)(relay)
        seq_left = relay.feed.count - beginning.cursor.seq

    assert has_ended and log.is_finished
    assert beginning.head or seq_left


async def test_after_a_loss_later_numbers_are_refused_and_negative_ones_are_not(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.attempt = AFTER_A_LOSS
    hub_harness.log.append(Start(AFTER_A_LOSS, "demo"))  # gives no chunk
    hub_harness.log.tokens("d")  # 6
    end(hub_harness)  # 7, 8, 9
    for number in (7, 9, 20):
        with pytest.raises(RequestError) as caught:
            await read(hub_harness, number)
        assert caught.value.code == "stream_reset"
    whole = chunks(await read(hub_harness, 0))
    assert chunks(await read(hub_harness, 3)) == whole[3:]
    assert chunks(await read(hub_harness, -2)) == whole[-2:]  # this client has counted nothing


@pytest.mark.parametrize("text", ["", " 1", "1.0", "x", "--1", "1e3", "٣", "9" * 16])
def test_start_index_is_a_whole_number(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_start_index(text)
    assert (caught.value.status, caught.value.code) == (400, "cursor_invalid")
    assert (parse_start_index("-3"), parse_start_index("07")) == (-3, 7)


class PathRequest:
    """The part of a request that `read_path_name` reads."""

    def __init__(self, scope: Any) -> None:
        self.path_params = scope["path_params"]


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("c1", "c1"),
        ("a%2Fb", "a/b"),
        ("a%2Fstream", "a/stream"),
        ("%0A%00%25", "\n\0%"),
        ("%C3%BC%F0%9F%9A%80", "ü🚀"),
        ("%2E%2E", ".."),
        ("a+b", "a+b"),
    ],
)
def test_a_name_in_the_path_may_be_any_text(raw: str, name: str) -> None:
    async def nobody(*_: Any) -> None: ...

    route = RawPathRoute("/ai-sdk/chat/{name}/stream", nobody)
    scope = {"type": "http", "method": "GET", "path": "/", "path_params": {}}
    match, child = route.matches({**scope, "raw_path": f"/ai-sdk/chat/{raw}/stream".encode()})
    assert match is Match.FULL
    request: Any = PathRequest(child)
    assert read_path_name(request) == name

    for other in ("a/b/stream", "/stream", "a%2Fstream", "stream"):
        match, _ = route.matches({**scope, "raw_path": f"/ai-sdk/chat/{other}".encode()})
        assert match is Match.NONE


def test_a_name_that_is_not_utf8_is_not_found() -> None:
    request: Any = PathRequest({"path_params": {"name": "%FF"}})
    with pytest.raises(NotFound):
        read_path_name(request)


# Replays, for a client that does not count chunks


async def test_a_replay_has_the_text_so_far_in_one_delta_and_then_each_token(
    hub_harness: HubHarness,
) -> None:
    client = Client()
    meta = await hub_harness.log.meta(GENERATION)
    assert meta is not None
    reading = asyncio.ensure_future(stream(
        hub_harness.hub, make_scope(client), client.receive, client.send,  # type: ignore[arg-type]
        meta=meta, dialect=AI_SDK, begin=begin_replay(hub_harness.hub),
    ))  # fmt: skip
    await settle()
    hub_harness.log.tokens("d", "e")
    await settle()
    end(hub_harness)
    await reading

    found = chunks(client)
    deltas = [chunk["delta"] for chunk in found if chunk["type"] == "text-delta"]
    assert deltas[0] == "abc" and "".join(deltas) == "abcde"
    whole = chunks(await read(hub_harness, 0))
    others = [chunk for chunk in whole if chunk["type"] != "text-delta"]
    assert [chunk for chunk in found if chunk["type"] != "text-delta"] == others


def merged(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the chunks with each run of deltas of one part joined."""
    out: list[dict[str, Any]] = []
    for chunk in found:
        last = out[-1] if out else {}
        if "delta" in chunk and (last.get("type"), last.get("id")) == (chunk["type"], chunk["id"]):
            last["delta"] += chunk["delta"]
        else:
            out.append(dict(chunk))
    return out


def in_frames(frames: bytes) -> list[dict[str, Any]]:
    return [json.loads(frame.removeprefix(b"data: ")) for frame in frames.split(b"\n\n")[:-1]]


TEXTS = st.text() | st.sampled_from(['"delta":"', '"}', "\\", "\n\n", 'data: {"type":"text-delta"'])
EVENTS = st.one_of(
    TEXTS.map(Token),
    TEXTS.map(Reasoning),
    TEXTS.map(lambda text: ToolCall(0, "c", "f", text)),
    st.just(Progress("pdf", 1, 2, 50.0)),
    TEXTS.map(lambda text: Data("d", {"delta": text})),
    st.just(Reset("restarted")),
)


@given(st.lists(EVENTS))
def test_join_deltas_joins_exactly_the_runs_of_deltas(events: list[Any]) -> None:
    meta = make_meta(request=encode_request(Request([], dialect={RESET_STEP: True})))
    fold = AI_SDK.new_fold(meta)
    frames = b"".join(fold.add(EventId(1, seq), encode(e)) for seq, e in enumerate(events, 1))

    assert in_frames(join_deltas(frames)) == merged(in_frames(frames))
