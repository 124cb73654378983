"""Reads that may be megabytes take turns: each owner's among themselves, and a node's."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from api.edge import heavy_reads
from api.edge.heavy_reads import NODE_AT_ONCE, OWNER_AT_ONCE, HeavyReads
from shared.errors import RequestError


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> HeavyReads:
    monkeypatch.setattr(heavy_reads, "WAIT_S", 0.05)
    return HeavyReads()


async def take(turns: HeavyReads, held: AsyncExitStack, owner: str, count: int) -> None:
    for _ in range(count):
        await held.enter_async_context(turns.turn(owner))


async def test_an_owner_who_has_his_share_waits_and_is_then_refused(turns: HeavyReads) -> None:
    async with AsyncExitStack() as held:
        await take(turns, held, "mallory", OWNER_AT_ONCE)

        with pytest.raises(RequestError) as refused:
            async with turns.turn("mallory"):
                pass
        assert (refused.value.status, refused.value.code) == (503, "unavailable")
        assert refused.value.retryable and refused.value.retry_after_s
        async with turns.turn("alice"):
            pass


async def test_a_turn_that_is_given_back_is_the_next_ones(turns: HeavyReads) -> None:
    async with AsyncExitStack() as held:
        await take(turns, held, "mallory", OWNER_AT_ONCE)
        waiting = asyncio.create_task(take(turns, held, "mallory", 1))
        await asyncio.sleep(0)
        await held.aclose()

        await waiting
        await held.aclose()


async def test_a_node_has_only_so_many(turns: HeavyReads) -> None:
    async with AsyncExitStack() as held:
        for n in range(NODE_AT_ONCE // OWNER_AT_ONCE):
            await take(turns, held, f"owner {n}", OWNER_AT_ONCE)

        with pytest.raises(RequestError):
            async with turns.turn("alice"):
                pass


async def test_who_waits_for_himself_takes_no_place_of_the_nodes(turns: HeavyReads) -> None:
    async with AsyncExitStack() as held:
        await take(turns, held, "mallory", OWNER_AT_ONCE)
        waiting = [asyncio.create_task(take(turns, held, "mallory", 1)) for _ in range(40)]
        await asyncio.sleep(0)

        await take(turns, held, "alice", OWNER_AT_ONCE)

        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(each, RequestError) for each in results)


async def test_an_owner_without_a_turn_is_forgotten(turns: HeavyReads) -> None:
    async with turns.turn("alice"):
        assert turns._owners
    assert not turns._owners
