"""The limits on large reads: for each owner, and for a node."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from api.edge import heavy_reads
from api.edge.heavy_reads import NODE_READS_MAX, OWNER_READS_MAX, HeavyReadLimit
from shared.errors import RequestError
from tests.support.processes import ROOT


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> HeavyReadLimit:
    monkeypatch.setattr(heavy_reads, "READ_TURN_WAIT_S", 0.05)
    return HeavyReadLimit()


async def take(turns: HeavyReadLimit, held: AsyncExitStack, owner: str, count: int) -> None:
    for _ in range(count):
        await held.enter_async_context(turns.turn(owner))


async def test_an_owner_at_the_limit_waits_and_is_then_refused(turns: HeavyReadLimit) -> None:
    async with AsyncExitStack() as held:
        await take(turns, held, "mallory", OWNER_READS_MAX)

        with pytest.raises(RequestError) as refused:
            async with turns.turn("mallory"):
                pass
        assert (refused.value.status, refused.value.code) == (503, "unavailable")
        assert refused.value.retryable and refused.value.retry_after_s
        async with turns.turn("alice"):
            pass


async def test_a_released_turn_goes_to_a_waiting_read(turns: HeavyReadLimit) -> None:
    async with AsyncExitStack() as held:
        await take(turns, held, "mallory", OWNER_READS_MAX)
        waiting = asyncio.create_task(take(turns, held, "mallory", 1))
        await asyncio.sleep(0)
        await held.aclose()

        await waiting
        await held.aclose()


async def test_a_node_has_at_most_node_reads_max_turns(turns: HeavyReadLimit) -> None:
    async with AsyncExitStack() as held:
        for n in range(NODE_READS_MAX // OWNER_READS_MAX):
            await take(turns, held, f"owner {n}", OWNER_READS_MAX)

        with pytest.raises(RequestError):
            async with turns.turn("alice"):
                pass


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("docs/protocol.md", "of an owner; on a node | {owner}; {node} |"),
        ("docs/architecture.md", "{owner} of an owner and {node} of a node at once"),
    ],
)
def test_the_pages_name_these_limits(page: str, words: str) -> None:
    text = (ROOT / page).read_text()

    assert words.format(owner=OWNER_READS_MAX, node=NODE_READS_MAX) in text


async def test_a_read_that_waits_for_its_owner_takes_no_turn_of_the_node(
    turns: HeavyReadLimit,
) -> None:
    async with AsyncExitStack() as held:
        await take(turns, held, "mallory", OWNER_READS_MAX)
        waiting = [asyncio.create_task(take(turns, held, "mallory", 1)) for _ in range(40)]
        await asyncio.sleep(0)

        await take(turns, held, "alice", OWNER_READS_MAX)

        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(each, RequestError) for each in results)


async def test_an_owner_without_a_turn_takes_no_memory(turns: HeavyReadLimit) -> None:
    async with turns.turn("alice"):
        assert turns._owners
    assert not turns._owners
