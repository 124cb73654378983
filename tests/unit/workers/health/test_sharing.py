"""The health of two workers that share it, without their loops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.backends.board import read_board
from shared.backends.breaker import Times
from shared.config.models import Model
from shared.errors import BackendError, Unavailable
from shared.redis.scripts import Scripts
from tests.support.wait import until
from workers.health import sharing
from workers.health.health import BackendHealth
from workers.health.sharing import Sharing

AWAY = BackendError("upstream_error", "it is away", is_outage=True)
MODELS = {"a": Model(name="a"), "b": Model(name="b")}
TIMES = Times(1, 1, 60_000, 60_000)  # a trial is due at once


class Pair:
    """Two workers on one Redis."""

    def __init__(self, redis: Any) -> None:
        self.healths = [BackendHealth(MODELS, TIMES, chance=lambda: 1.0) for _ in range(2)]
        self.sharings = [
            Sharing(health, Scripts(redis), f"w{n}") for n, health in enumerate(self.healths)
        ]

    async def beat(self) -> None:
        for one in self.sharings:
            await one.beat()

    async def open_breaker(self) -> None:
        for n in range(3):
            self.healths[n % 2].start("a").close(AWAY)
        await self.beat()
        await self.beat()


@pytest.fixture
async def pair(fake_redis: Any) -> Pair:
    made = Pair(fake_redis)
    await made.beat()
    return made


async def test_the_failures_of_all_workers_add_up_and_all_know_the_breaker(pair: Pair) -> None:
    await pair.open_breaker()

    assert [health.state("a") for health in pair.healths] == ["open", "open"]
    assert [health.state("b") for health in pair.healths] == ["closed", "closed"]


async def test_of_two_workers_that_ask_at_the_same_time_one_gets_the_trial(pair: Pair) -> None:
    await pair.open_breaker()
    for health in pair.healths:
        await until_due(health)

    admitted = await asyncio.gather(*(health.admit("a", "g") for health in pair.healths))
    assert sorted(admitted) == [False, True]
    await pair.beat()
    assert [health.state("a") for health in pair.healths] == ["half_open", "half_open"]


async def test_the_first_token_of_the_trial_closes_the_breaker_of_all_workers(pair: Pair) -> None:
    await pair.open_breaker()
    first, second = pair.healths
    await until_due(first)
    assert await first.admit("a", "g")
    trial = first.start("a", "g")
    assert not await second.admit("a", "g")
    trial.first_token()
    await pair.beat()
    assert [health.state("a") for health in pair.healths] == ["closed", "closed"]


async def test_a_trial_that_was_asked_for_in_advance_is_returned_if_nobody_uses_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "TRIAL_UNUSED_S", 1e-9)
    await pair.open_breaker()
    first, second = pair.healths
    await until_due(first)
    assert not first.allows("a")
    await pair.sharings[0].beat()
    assert first.allows("a")
    await pair.sharings[0].beat()
    await pair.beat()
    assert second.state("a") == "open"
    assert await second.admit("a", "g")


async def test_a_trial_belongs_to_the_generation_that_took_it(pair: Pair) -> None:
    await pair.open_breaker()
    health = pair.healths[0]
    await until_due(health)
    assert await health.admit("a", "g")
    assert not health.allows("a")
    assert not await health.admit("a", "other")
    assert not health.start("a", "other").is_trial
    assert health.start("a", "g").is_trial


async def test_calls_in_flight_and_times_of_the_other_workers_are_known(pair: Pair) -> None:
    first, second = pair.healths
    first.start("a").first_token()
    first.start("a")
    second.start("a")
    await pair.beat()
    await pair.beat()
    assert [health.busy("a") for health in pair.healths] == [3, 3]
    assert second.first_token_s("a") is not None
    assert second.first_token_s("b") is None


async def test_a_worker_that_has_gone_is_forgotten(pair: Pair, fake_redis: Any) -> None:
    pair.healths[0].start("a")
    await pair.beat()
    await pair.beat()
    await pair.sharings[0].withdraw()
    await pair.sharings[1].beat()
    assert pair.healths[1].busy("a") == 0
    assert len((await read_board(fake_redis))[2]) == 1


async def test_while_redis_is_away_a_worker_goes_by_its_own_notes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*args: Any, **others: Any) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(sharing, "change_breaker", away)
    health = pair.healths[0]
    for _ in range(3):
        health.start("a").close(AWAY)
    with pytest.raises(Unavailable):
        await pair.sharings[0].beat()
    assert health.state("a") == "open"
    await until_due(health)
    assert not await health.admit("a", "g")
    monkeypatch.undo()
    await pair.beat()
    await pair.beat()
    assert pair.healths[1].state("a") == "open"


async def until_due(health: BackendHealth) -> None:
    await until(lambda: health._is_due("a"), 5.0, "a cool-down that is over")
