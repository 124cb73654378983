"""Answers that are not streamed: the complete log, the refusals, and the cost of waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from api.hub.contracts import ReadingOutcome
from api.readers.complete_answer import read_complete_log
from api.readers.log_waiter import Waiter
from shared.errors import Expired, RequestError
from shared.log.event_bytes import LOST
from shared.log.events import Start, Token, encode
from shared.log.ids import START, EventId
from tests.support.bench import END, GENERATION, Bench, Client, settle


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as bench:
        bench.log.create(grace_s=5.0)
        yield bench


class Reading:
    def __init__(self, bench: Bench) -> None:
        self.client = Client()
        self.got: list[tuple[EventId, bytes]] = []
        self.client.incoming.get_nowait()  # the request body, which the route has read before
        meta = bench.log.known[GENERATION]
        self.task = asyncio.ensure_future(
            read_complete_log(bench.hub, meta, self.client.receive, self._add)  # type: ignore[arg-type]
        )

    def _add(self, event_id: EventId, raw: bytes) -> None:
        self.got.append((event_id, raw))

    async def ended(self) -> list[tuple[EventId, bytes]]:
        async with asyncio.timeout(5):
            await self.task
        return self.got

    async def refusal(self) -> str:
        with pytest.raises(RequestError) as caught:
            await self.ended()
        return caught.value.code


async def test_the_complete_log_is_handed_over_after_its_end(bench: Bench) -> None:
    reading = Reading(bench)
    await settle()
    bench.log.append(Start(1, "demo"))
    bench.log.tokens("Hel", "lo")
    await settle()
    assert not reading.got and bench.log.count("attach") == 1
    bench.log.append(END)

    assert await reading.ended() == bench.log.logs[GENERATION]
    assert await Reading(bench).ended() == bench.log.logs[GENERATION]


async def test_an_event_does_not_wake_the_waiting_task(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = 0
    wait = asyncio.Event.wait

    async def counted(event: asyncio.Event) -> bool:
        nonlocal waits
        waits += 1
        return await wait(event)

    reading = Reading(bench)
    await settle()
    monkeypatch.setattr(asyncio.Event, "wait", counted)
    for n in range(50):
        bench.log.tokens(str(n))
        await settle(3)
    bench.log.append(END)
    await reading.ended()

    assert waits <= 1


async def test_a_disconnect_leaves_and_starts_the_grace(bench: Bench) -> None:
    reading = Reading(bench)
    await settle()
    assert bench.hub.statistics().connections == {"whole": 1}
    reading.client.leave()

    assert await reading.refusal() == "request_timeout"
    await settle()
    assert bench.log.count("detach") == 1
    assert not bench.hub.connections


async def test_a_drain_ends_the_wait_and_a_rotation_does_not(bench: Bench) -> None:
    reading = Reading(bench)
    await settle()
    (waiter,) = bench.hub.connections
    waiter.break_off(ReadingOutcome.ROTATED)
    await settle()
    assert not reading.task.done()
    waiter.break_off(ReadingOutcome.DRAINED)

    assert await reading.refusal() == "draining"


async def test_a_lost_generation_ends_with_an_id_outside_the_log(bench: Bench) -> None:
    bench.log.tokens("a")
    reading = Reading(bench)
    await settle()
    bench.hub.relays[GENERATION].end_unlogged(LOST)

    assert await reading.ended() == [(EventId(1, 1), encode(Token("a"))), (START, LOST)]


async def test_a_log_that_expires_during_the_wait_raises_expired(bench: Bench) -> None:
    reading = Reading(bench)
    await settle()
    bench.hub.relays[GENERATION].declare_expired()
    with pytest.raises(Expired):
        await reading.ended()


async def test_trimmed_entries_are_read_again(bench: Bench) -> None:
    bench.log.tokens("a", "b", "c")
    meta = bench.log.known[GENERATION]
    async with bench.hub.reading(meta) as relay:
        with Waiter(relay, 0.0) as waiter:
            await waiter.until(lambda: relay.feed.is_up_to_date)
        relay.trim()
        assert relay.feed.base == 2
        reading = Reading(bench)
        await settle()
        bench.log.append(END)

        assert await reading.ended() == bench.log.logs[GENERATION]


async def test_a_long_log_is_handed_over_step_by_step(bench: Bench) -> None:
    bench.log.tokens(*map(str, range(2_500)))
    bench.log.append(END)
    assert len(await Reading(bench).ended()) == 2_501
