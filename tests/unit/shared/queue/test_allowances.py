"""When the count of a prompt goes with its creation, and how a refused generation is taken back."""

from __future__ import annotations

import pytest

from shared.config.limits import OwnerLimits
from shared.later.webhooks import Webhook
from shared.log.records import Ended
from shared.queue import allowances
from shared.queue.accept import Acceptor, NewGeneration
from shared.queue.allowance import ADMIT, OverLimit, admission
from shared.queue.allowances import RIDING_MAX
from shared.redis import keys
from tests.support.generation import store_on


class Desk:
    """Accepts prompts of alice, and counts the round trips of each."""

    def __init__(self, redis):
        self.redis = redis
        self.store = store_on(redis)
        self.acceptor = Acceptor(redis, self.store, self.store.settings)
        self.calls = []
        real = self.store.scripts.run_mixed

        async def noted(calls):
            self.calls.append([name for name, _ in calls])
            return await real(calls)

        self.store.scripts.run_mixed = noted

    async def warm(self):
        """The first prompt of a process learns how long the queue is."""
        await self.acceptor.accept(NewGeneration("warm", "demo", b'{"messages":[]}'))
        self.calls.clear()

    async def ask(self, **limits):
        new = NewGeneration("alice", "demo", b'{"messages":[]}', limits=OwnerLimits(**limits))
        self.calls.clear()
        return await self.acceptor.accept(new)

    async def use(self, count, **limits):
        """Count prompts at another node."""
        for number in range(count):
            call = admission("alice", f"other{number}", 0, OwnerLimits(**limits), self.settings)
            await self.store.scripts.run(ADMIT, *call)

    @property
    def settings(self):
        return self.store.settings

    @property
    def has_asked_before(self):
        return [ADMIT] in self.calls


@pytest.fixture
async def desk(redis):
    desk = Desk(redis)
    await desk.warm()
    return desk


async def test_the_count_goes_with_the_creation_while_half_of_each_limit_is_left(desk):
    asked = []
    for _ in range(6):
        accepted = await desk.ask(active_max=6)
        asked.append(desk.has_asked_before)
        assert accepted.allowance.active == len(asked)

    assert asked == [False, False, False, True, True, True]


async def test_a_generation_that_is_refused_at_its_creation_is_taken_back(desk):
    await desk.use(2, active_max=2)

    with pytest.raises(OverLimit) as caught:
        await desk.ask(active_max=2)

    assert not desk.has_asked_before, "this process could not know"
    assert caught.value.code == "too_many_active"
    waiting = await desk.redis.zrange(keys.waiting("interactive"), 0, -1)
    assert len(waiting) == 1, "the prompt that warmed up"
    (sealed,) = [
        key.decode().partition("{")[2].partition("}")[0]
        for key in await desk.redis.keys("tr:{gen_*}:meta")
        if await desk.redis.hget(key, "status") == b"sealed"
    ]
    assert isinstance(await desk.store.begin(sealed, "t", "w"), Ended), "no worker runs it"
    assert await desk.redis.zcard(keys.owner_active("alice")) == 2


async def test_a_prompt_with_a_webhook_is_counted_before_the_webhook_is_registered(desk):
    await desk.use(2, active_max=2)
    hook = Webhook("https://example.com/hook", "whsec_" + "a" * 32)
    limits = OwnerLimits(active_max=2)
    desk.calls.clear()

    with pytest.raises(OverLimit):
        await desk.acceptor.accept(
            NewGeneration("alice", "demo", b'{"messages":[]}', limits=limits, webhook=hook)
        )

    assert desk.calls == [[ADMIT]]
    assert not await desk.redis.keys("tr:{jobs}:hook*")


async def test_after_a_refusal_the_record_is_asked_before_anything_is_created(desk):
    await desk.use(2, active_max=2)
    for _ in range(2):
        with pytest.raises(OverLimit):
            await desk.ask(active_max=2)

    assert desk.calls == [[ADMIT]]


async def test_an_old_reply_about_an_owners_limits_counts_as_unknown(desk, monkeypatch):
    await desk.use(2, active_max=2)
    with pytest.raises(OverLimit):
        await desk.ask(active_max=2)
    monkeypatch.setattr(allowances, "ALLOWANCE_KNOWN_S", 0.0)

    with pytest.raises(OverLimit):
        await desk.ask(active_max=2)

    assert not desk.has_asked_before


def test_few_prompts_of_an_owner_ride_at_once():
    state = allowances._OwnerState()
    limits = OwnerLimits(active_max=1_000)
    assert state.may_ride(limits, 0.0)
    state.riding = 1
    assert not state.may_ride(limits, 0.0), "nothing is known yet"

    state.allowance = allowances.Allowance(limits, 0, 0, 0, 0, 0, 0, active=10)
    state.riding = RIDING_MAX - 1
    assert state.may_ride(limits, 0.0)
    state.riding = RIDING_MAX
    assert not state.may_ride(limits, 0.0)
