"""Numbered chunks: a number means the same place on every node, or it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.hub.encoded import EncodedLog
from api.hub.feed import Feed
from api.hub.frame import LiveFrame
from api.readers.chunk_number import ChunkPlace, fold_all, locate
from shared.errors import RequestError, Unavailable
from shared.log.events import Event, Progress, Reset, Start, Token, ToolCall, encode
from shared.log.ids import START, EventId
from tests.support.hub_harness import END, GENERATION, HubHarness, make_meta, settle
from tests.support.numbered_dialect import TOY

AFTER_A_LOSS = 1_795_255_095_694


@pytest.fixture
async def hub_harness() -> AsyncIterator[HubHarness]:
    async with HubHarness() as hub_harness:
        hub_harness.log.create()
        hub_harness.log.append(Start(1, "demo"))  # chunks 2 and 3
        hub_harness.log.tokens("a", "b", "c")  # 4, 5, 6
        yield hub_harness


async def place_of(hub_harness: HubHarness, number: int) -> ChunkPlace:
    meta = await hub_harness.log.meta(GENERATION)
    assert meta is not None
    async with hub_harness.hub.reading(meta) as relay:
        return await locate(hub_harness.hub, relay, TOY, number)


async def refusal(hub_harness: HubHarness, number: int) -> str:
    with pytest.raises(RequestError) as caught:
        await place_of(hub_harness, number)
    return caught.value.code


def numbers(sent: bytes) -> list[int]:
    return [int(part.split(b",")[0]) for part in sent.split(b'{"n":')[1:]]


EVENTS = st.sampled_from(
    [Token("a"), ToolCall(0), Start(1, "demo"), Progress("x", 1, 2, 50.0)]  # progress: no chunk
)


@given(st.lists(EVENTS, max_size=20), st.integers(0, 70), st.booleans())
def test_a_placed_number_gives_exactly_the_chunks_from_it_on(
    events: list[Event], number: int, has_ended: bool
) -> None:
    feed = Feed()
    for seq, event in enumerate([*events, END] if has_ended else events, 1):
        feed.offer_frame(LiveFrame(feed.top, ((EventId(1, seq), encode(event)),), 0))
    log = EncodedLog(feed, TOY, make_meta())
    whole = log.opening + log.slice(0)[0]
    number = min(number, log.chunks)

    found = log.find_chunk(number)

    assert found is not None
    seq, head = found
    rest = head + log.slice(seq)[0]
    assert numbers(rest) == list(range(number, log.chunks))
    assert whole.endswith(rest)
    assert numbers(whole) == list(range(log.chunks))


async def test_a_chunk_of_the_opening_is_placed_without_redis(hub_harness: HubHarness) -> None:
    meta = await hub_harness.log.meta(GENERATION)
    assert meta is not None
    hub_harness.log.is_away = True
    async with hub_harness.hub.reading(meta) as relay:
        place = await locate(hub_harness.hub, relay, TOY, 1)

    assert place == ChunkPlace(START, b'data: {"n":1,"at":"opening","part":1}\n\n')


async def test_the_number_after_the_opening_is_placed_at_the_start(hub_harness: HubHarness) -> None:
    meta = await hub_harness.log.meta(GENERATION)
    assert meta is not None
    async with hub_harness.hub.reading(meta) as relay:
        await fold_all(hub_harness.hub, relay, TOY)

        assert await locate(hub_harness.hub, relay, TOY, 2) == ChunkPlace(START, b"")


async def test_a_number_is_placed_as_an_entry_and_the_rest_of_its_bytes(
    hub_harness: HubHarness,
) -> None:
    assert await place_of(hub_harness, 3) == (
        EventId(1, 1),
        b'data: {"n":3,"at":"1-1","part":1}\n\n',
    )
    assert await place_of(hub_harness, 6) == (
        EventId(1, 4),
        b'data: {"n":6,"at":"1-4","part":0}\n\n',
    )


async def test_the_next_number_is_placed_after_the_last_entry(hub_harness: HubHarness) -> None:
    assert await place_of(hub_harness, 7) == ChunkPlace(EventId(1, 4), b"")


async def test_a_number_beyond_the_log_waits_for_the_missing_tail(hub_harness: HubHarness) -> None:
    waiting = asyncio.ensure_future(place_of(hub_harness, 9))
    await settle()
    assert not waiting.done()
    hub_harness.log.tokens("d", "e", "f")

    assert await waiting == (EventId(1, 7), b'data: {"n":9,"at":"1-7","part":0}\n\n')


async def test_a_tail_that_does_not_come_back_is_a_stream_reset(
    hub_harness: HubHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.readers.chunk_number.CURSOR_WAIT_S", 0.01)
    assert await refusal(hub_harness, 9) == "stream_reset"


@pytest.mark.parametrize("last", [[END], [Reset("takeover"), Token("A")]], ids=["end", "over"])
async def test_a_number_beyond_an_ended_log_is_refused_at_once(
    hub_harness: HubHarness, monkeypatch: pytest.MonkeyPatch, last: list[Event]
) -> None:
    monkeypatch.setattr("api.readers.chunk_number.CURSOR_WAIT_S", 60.0)
    hub_harness.log.append(*last)  # chunk 7
    async with asyncio.timeout(5):
        assert await place_of(hub_harness, 8) == ChunkPlace(EventId(1, 5), b"")
        assert await refusal(hub_harness, 9) == "stream_reset"


async def test_a_takeover_without_a_loss_keeps_the_numbers(hub_harness: HubHarness) -> None:
    hub_harness.log.attempt = 2
    hub_harness.log.append(Start(2, "demo"))
    hub_harness.log.tokens("d")  # 9
    assert (await place_of(hub_harness, 9)).cursor == EventId(2, 6)


async def test_after_a_loss_only_numbers_before_the_jump_are_placed(
    hub_harness: HubHarness,
) -> None:
    """After the jump the node cannot tell which of two texts the client has counted."""
    hub_harness.log.roll_back(1)
    hub_harness.log.attempt = AFTER_A_LOSS
    hub_harness.log.append(Start(AFTER_A_LOSS, "demo"))  # 6 and 7, where "c" was
    hub_harness.log.tokens("C")

    assert (await place_of(hub_harness, 5)).cursor == EventId(1, 3)
    assert await place_of(hub_harness, 6) == (
        EventId(AFTER_A_LOSS, 4),
        b'data: {"n":6,"at":"%d-4","part":0}\n\ndata: {"n":7,"at":"%d-4","part":1}\n\n'
        % (AFTER_A_LOSS, AFTER_A_LOSS),
    )
    assert await refusal(hub_harness, 7) == "stream_reset"


async def test_only_the_opening_is_placed_when_the_first_attempt_jumps(
    hub_harness: HubHarness,
) -> None:
    hub_harness.log.lose()
    hub_harness.log.attempt = AFTER_A_LOSS
    hub_harness.log.create()
    hub_harness.log.append(Start(AFTER_A_LOSS, "demo"))
    assert await place_of(hub_harness, 2) == ChunkPlace(START, b"")
    assert await refusal(hub_harness, 3) == "stream_reset"


async def test_the_copy_is_compared_with_the_log_first(hub_harness: HubHarness) -> None:
    meta = await hub_harness.log.meta(GENERATION)
    assert meta is not None
    async with hub_harness.hub.reading(meta) as relay:
        assert (await fold_all(hub_harness.hub, relay, TOY)).chunks == 7
        hub_harness.log.is_deaf = True
        hub_harness.log.roll_back(1)
        hub_harness.log.attempt = AFTER_A_LOSS
        hub_harness.log.append(Start(AFTER_A_LOSS, "demo"))
        hub_harness.log.tokens("C")

        assert await refusal(hub_harness, 7) == "stream_reset"


async def test_trimmed_entries_are_read_again(hub_harness: HubHarness) -> None:
    meta = await hub_harness.log.meta(GENERATION)
    assert meta is not None
    async with hub_harness.hub.reading(meta) as relay:
        log = await fold_all(hub_harness.hub, relay, TOY)
        relay.trim()
        assert relay.feed.base == 3 and log.base == 4

        assert (await place_of(hub_harness, 3)).head == b'data: {"n":3,"at":"1-1","part":1}\n\n'


async def test_a_log_that_cannot_be_read_in_time_is_unavailable(
    hub_harness: HubHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.readers.chunk_number.LOG_READ_S", 0.01)
    meta = await hub_harness.log.meta(GENERATION)
    assert meta is not None
    hub_harness.log.is_away = True
    async with hub_harness.hub.reading(meta) as relay:
        with pytest.raises(Unavailable):
            await locate(hub_harness.hub, relay, TOY, 4)


async def test_a_long_log_is_folded_step_by_step(hub_harness: HubHarness) -> None:
    hub_harness.log.tokens(*("x" for _ in range(2_500)))
    assert (await place_of(hub_harness, 2_506)).cursor == EventId(1, 2_504)
