"""Answers that are not streamed: the complete log, the refusals, and the cost of waiting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from api.hub.contracts import ReadingOutcome
from api.hub.relay import Relay
from api.readers.complete_answer import read_complete_log
from api.readers.log_waiter import Waiter
from shared.errors import Expired, RequestError
from shared.log.event_bytes import LOST
from shared.log.events import Start, Token, encode
from shared.log.ids import START, EventId
from tests.support.hub_harness import END, GENERATION, Client, HubHarness, settle


@pytest.fixture
async def hub_harness() -> AsyncIterator[HubHarness]:
    async with HubHarness() as hub_harness:
        hub_harness.log.create(grace_s=5.0)
        yield hub_harness


class Reading:
    def __init__(self, hub_harness: HubHarness) -> None:
        self.client = Client()
        self.got: list[tuple[EventId, bytes]] = []
        self.client.incoming.get_nowait()  # the request body, which the route has read before
        meta = hub_harness.log.known[GENERATION]
        self.task = asyncio.ensure_future(
            read_complete_log(hub_harness.hub, meta, self.client.receive, self._add)  # type: ignore[arg-type]
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


async def test_the_complete_log_is_handed_over_after_its_end(hub_harness: HubHarness) -> None:
    reading = Reading(hub_harness)
    await settle()
    hub_harness.log.append(Start(1, "demo"))
    hub_harness.log.tokens("Hel", "lo")
    await settle()
    assert not reading.got and hub_harness.log.count("attach") == 1
    hub_harness.log.append(END)

    assert await reading.ended() == hub_harness.log.logs[GENERATION]
    assert await Reading(hub_harness).ended() == hub_harness.log.logs[GENERATION]


async def test_an_event_does_not_wake_the_waiting_task(
    hub_harness: HubHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = 0
    wait = asyncio.Event.wait

    async def counted(event: asyncio.Event) -> bool:
        nonlocal waits
        waits += 1
        return await wait(event)

    reading = Reading(hub_harness)
    await settle()
    monkeypatch.setattr(asyncio.Event, "wait", counted)
    for n in range(50):
        hub_harness.log.tokens(str(n))
        await settle(3)
    hub_harness.log.append(END)
    await reading.ended()

    assert waits <= 1


async def test_a_disconnect_leaves_and_starts_the_grace(hub_harness: HubHarness) -> None:
    reading = Reading(hub_harness)
    await settle()
    assert hub_harness.hub.statistics().connections == {"whole": 1}
    reading.client.leave()

    assert await reading.refusal() == "request_timeout"
    await settle()
    assert hub_harness.log.count("detach") == 1
    assert not hub_harness.hub.connections


async def test_a_drain_ends_the_wait_and_a_rotation_does_not(hub_harness: HubHarness) -> None:
    reading = Reading(hub_harness)
    await settle()
    (waiter,) = hub_harness.hub.connections
    waiter.break_off(ReadingOutcome.ROTATED)
    await settle()
    assert not reading.task.done()
    waiter.break_off(ReadingOutcome.DRAINED)

    assert await reading.refusal() == "draining"


async def test_a_lost_generation_ends_with_an_id_outside_the_log(hub_harness: HubHarness) -> None:
    hub_harness.log.tokens("a")
    reading = Reading(hub_harness)
    await settle()
    hub_harness.hub.relays[GENERATION].end_unlogged(LOST)

    assert await reading.ended() == [(EventId(1, 1), encode(Token("a"))), (START, LOST)]


async def test_a_log_that_expires_during_the_wait_raises_expired(hub_harness: HubHarness) -> None:
    reading = Reading(hub_harness)
    await settle()
    hub_harness.hub.relays[GENERATION].declare_expired()
    with pytest.raises(Expired):
        await reading.ended()


@contextlib.asynccontextmanager
async def trimmed(hub_harness: HubHarness) -> AsyncIterator[Relay]:
    """Hold a relay that has trimmed the beginning of a log of three tokens."""
    hub_harness.log.tokens("a", "b", "c")
    meta = hub_harness.log.known[GENERATION]
    async with hub_harness.hub.reading(meta) as relay:
        with Waiter(relay, 0.0) as waiter:
            await waiter.until(lambda: relay.feed.is_up_to_date)
        relay.trim()
        assert relay.feed.base == 2
        yield relay


async def test_trimmed_entries_are_read_again(hub_harness: HubHarness) -> None:
    async with trimmed(hub_harness):
        reading = Reading(hub_harness)
        await settle()
        hub_harness.log.append(END)

        assert await reading.ended() == hub_harness.log.logs[GENERATION]


async def test_a_lost_generation_whose_beginning_was_trimmed_ends_at_once(
    hub_harness: HubHarness,
) -> None:
    """The rest without its beginning would be an answer with a hole."""
    async with trimmed(hub_harness) as relay:
        reading = Reading(hub_harness)
        await settle()
        hub_harness.log.lose()
        relay.end_unlogged(LOST)
        pages = hub_harness.log.count("page")

        assert await reading.ended() == [(START, LOST)]
        assert hub_harness.log.count("page") == pages


async def test_a_long_log_is_handed_over_step_by_step(hub_harness: HubHarness) -> None:
    hub_harness.log.tokens(*map(str, range(2_500)))
    hub_harness.log.append(END)
    assert len(await Reading(hub_harness).ended()) == 2_501
