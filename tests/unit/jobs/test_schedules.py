"""Firings: one for each due time, under crashes and with several processes."""

from __future__ import annotations

import asyncio
import json

import pytest

from jobs import schedules as module
from jobs.owners import HOLD_S, Owners
from jobs.schedules import Firings, generations
from shared.config.limits import OwnerLimits
from shared.config.models import Model
from shared.errors import RequestError, Unavailable
from shared.later.schedules import Schedule, Schedules, Timing
from shared.queue.accept import Acceptor
from shared.queue.endings import cancel
from shared.queue.overview import owner_ids, session_ids
from shared.redis import keys
from shared.redis.counts import read_counts
from tests.support.generation import store_on

HOUR_MS = 3_600_000
KNOWN = Owners({"alice"})


@pytest.fixture
def store(redis):
    return store_on(redis)


@pytest.fixture
def schedules(redis):
    return Schedules(redis, 100)


@pytest.fixture
def create(store):
    models = {"demo": Model(name="demo"), "other": Model(name="other")}
    acceptor = Acceptor(store.redis, store, store.settings)
    return generations(acceptor, models, store.settings, KNOWN)


@pytest.fixture
def firings(store, schedules, create):
    return Firings(store, schedules, {"generation": create}, KNOWN)


async def plan(schedules, *, due_ms, timing=None, number=1, kind="generation", **body):
    asked = {"prompt": "Hi", "session": "mornings", "metadata": {"a": 1}, **body}
    one = Schedule(
        id=f"sched_{number:026}",
        owner="alice",
        kind=kind,
        body=json.dumps(asked).encode(),
        timing=timing or Timing(run_at_ms=due_ms),
        created_ms=0,
        next_ms=due_ms,
        last_ms=0,
        last_id="",
        error=None,
    )
    assert (await schedules.add(one)).how == "ok"
    return one


async def turn(*firings):
    """Run the due jobs in several processes at once."""
    async with asyncio.TaskGroup() as tasks:
        for one in firings:
            for job in await one.due():
                tasks.create_task(one.fire({}, *job.args))


async def counted(schedules):
    counts, _ = await read_counts(schedules.redis)
    return {name: number for name, number in counts.items() if number}


async def test_a_due_schedule_creates_a_generation_of_its_owner(firings, schedules, store):
    due_ms = await store.now_ms()
    one = await plan(schedules, due_ms=due_ms, model="other")
    await turn(firings)

    found = await schedules.get(one.id)
    meta = await store.meta(found.last_id)
    assert (meta.owner, meta.session, meta.model) == ("alice", "mornings", "other")
    assert json.loads(meta.metadata) == {"a": 1, "schedule": one.id}
    assert meta.status == "queued" and meta.attempt == 0
    assert await owner_ids(store.redis, "alice", 10) == [found.last_id]
    assert await session_ids(store.redis, "alice", "mornings", 10) == [found.last_id]
    assert await store.redis.xlen(keys.lane("interactive")) == 1
    assert found.next_ms is None and abs(found.last_ms - due_ms) < 60_000
    assert await counted(schedules) == {"schedules_fired": 1}


async def test_a_schedule_that_is_not_due_does_not_fire(firings, schedules, store):
    one = await plan(schedules, due_ms=await store.now_ms() + 60_000)
    await turn(firings)

    assert not (await schedules.get(one.id)).last_id
    assert await store.redis.xlen(keys.lane("interactive")) == 0


async def test_a_schedule_in_the_past_fires_at_once(firings, schedules):
    one = await plan(schedules, due_ms=1)
    await turn(firings)

    assert (await schedules.get(one.id)).last_id


async def test_two_processes_create_one_generation(firings, schedules, store, create):
    other = Firings(store, schedules, {"generation": create}, KNOWN)
    one = await plan(schedules, due_ms=1)
    await turn(firings, other, firings)

    assert await owner_ids(store.redis, "alice", 10) == [(await schedules.get(one.id)).last_id]
    assert await counted(schedules) == {"schedules_fired": 1, "schedules_late": 1}


async def test_after_an_outage_one_firing_covers_all_missed_times(firings, schedules, store):
    now_ms = await store.now_ms()
    timing = Timing(cron="* * * * *")
    one = await plan(schedules, due_ms=timing.next_ms(now_ms - 24 * HOUR_MS), timing=timing)
    for _ in range(3):
        await turn(firings)

    assert len(await owner_ids(store.redis, "alice", 10)) == 1
    assert (await schedules.get(one.id)).next_ms > now_ms


async def test_a_schedule_of_an_unknown_owner_is_held_and_fires_once_later(
    firings, schedules, store, create, caplog
):
    now_ms = await store.now_ms()
    timing = Timing(cron="* * * * *")
    due_ms = timing.next_ms(now_ms - 24 * HOUR_MS)
    one = await plan(schedules, due_ms=due_ms, timing=timing)
    strict = Firings(store, schedules, {"generation": create}, Owners({"bob"}))
    await turn(strict)

    held = await schedules.get(one.id)
    assert (held.last_id, held.next_ms) == ("", due_ms), "what it is due for stays"
    assert await owner_ids(store.redis, "alice", 10) == []
    looked_at_ms = await store.redis.zscore(keys.SCHEDULES, one.id)
    assert 0 < looked_at_ms - now_ms - HOLD_S * 1000 < 60_000
    assert await strict.due() == []
    assert [line.message for line in caplog.records] == ["schedule held"]
    assert caplog.records[0].owner == "alice"

    await store.redis.zadd(keys.SCHEDULES, {one.id: 1})  # the minute is over
    await turn(strict)
    assert len(caplog.records) == 1, "one line for each owner and hour"

    await store.redis.zadd(keys.SCHEDULES, {one.id: 1})
    for _ in range(3):
        await turn(firings)
    assert len(await owner_ids(store.redis, "alice", 10)) == 1
    assert (await schedules.get(one.id)).next_ms > now_ms


class Cut(Exception):
    """Stands for a crash of the process."""


STEPS = ("get", "begin", "finish")


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", [*STEPS, "create"])
async def test_a_crash_between_any_two_steps_creates_one_generation(
    firings, schedules, store, create, monkeypatch, step, is_after
):
    due_ms = await store.now_ms() - 5
    one = await plan(schedules, due_ms=due_ms)
    cut_once = [True]

    def cutting(call):
        async def called(*args, **kwargs):
            answer = None
            if not cut_once or is_after:
                answer = await call(*args, **kwargs)
            if cut_once and cut_once.pop():
                raise Cut
            return answer

        return called

    if step == "create":
        firings.kinds["generation"] = cutting(create)
    else:
        monkeypatch.setattr(schedules, step, cutting(getattr(schedules, step)))
    with pytest.raises(ExceptionGroup):
        await turn(firings)
    await turn(firings)
    await turn(firings)

    found = await schedules.get(one.id)
    assert found.next_ms is None
    assert found.last_id == one.made_id("gen_", due_ms)
    assert await owner_ids(store.redis, "alice", 10) == [found.last_id]


@pytest.mark.parametrize("call", ["_register", "_enqueue", "_index"])
async def test_a_crash_during_acceptance_creates_one_generation(
    firings, schedules, store, monkeypatch, call
):
    one = await plan(schedules, due_ms=1)
    real, cut_once = getattr(Acceptor, call), [True]

    async def cut(self, *args):
        await real(self, *args)
        if cut_once:
            cut_once.pop()
            raise Cut

    monkeypatch.setattr(Acceptor, call, cut)
    with pytest.raises(ExceptionGroup):
        await turn(firings)
    await turn(firings)

    assert await owner_ids(store.redis, "alice", 10) == [one.made_id("gen_", 1)]
    assert (await schedules.get(one.id)).last_id == one.made_id("gen_", 1)


async def test_a_repeat_finds_a_generation_that_has_ended(firings, schedules, store, create):
    """It ran between the crash and the repeat, and must not run again."""
    one = await plan(schedules, due_ms=1)
    await schedules.begin(one, 1)
    made = await create(one, 1, False)
    await cancel(store, made)
    await turn(firings)

    assert (await store.meta(made)).status == "cancelled"
    assert (await schedules.get(one.id)).last_id == made
    assert await store.redis.xlen(keys.lane("interactive")) == 1, "only that of the first time"


async def test_a_lost_generation_is_created_again_and_its_attempts_jump(
    firings, schedules, store, create
):
    one = await plan(schedules, due_ms=1)
    await schedules.begin(one, 1)
    made = await create(one, 1, False)
    await store.redis.delete(keys.meta(made))
    await turn(firings)

    assert (await store.meta(made)).status == "queued"
    assert await store.redis.hget(keys.meta(made), "hist") == b"lost"


async def test_an_unknown_model_ends_the_firing_with_an_error(firings, schedules, store):
    timing = Timing(cron="0 * * * *")
    now_ms = await store.now_ms()
    due_ms = timing.next_ms(now_ms - HOUR_MS)
    one = await plan(schedules, due_ms=due_ms, timing=timing, model="gone")
    await turn(firings)

    found = await schedules.get(one.id)
    assert found.error[0] == "model_not_found" and "gone" in found.error[1]
    assert found.next_ms > now_ms and not found.last_id
    assert await counted(schedules) == {"schedules_refused": 1}


async def test_a_successful_firing_clears_the_error(firings, schedules, store, create):
    timing = Timing(cron="0 * * * *")
    one = await plan(schedules, due_ms=HOUR_MS, timing=timing, model="gone")
    await turn(firings)
    found = await schedules.get(one.id)
    await schedules.redis.hset(keys.schedule(one.id), mapping={"body": '{"prompt":"Hi"}'})
    await firings.fire({}, one.id, found.next_ms)

    found = await schedules.get(one.id)
    assert found.error is None and found.last_id


async def test_a_full_queue_postpones_the_firing(firings, schedules, store):
    one = await plan(schedules, due_ms=1)
    real = firings.kinds["generation"]

    async def full(*_):
        raise RequestError(503, "queue_full", "try again", retryable=True)

    firings.kinds["generation"] = full
    await turn(firings)
    assert (await schedules.get(one.id)).next_ms == 1
    assert await firings.due() == []

    firings.kinds["generation"] = real
    await schedules.postpone(one.id, 1)
    await turn(firings)
    assert (await schedules.get(one.id)).last_id == one.made_id("gen_", 1)


@pytest.mark.parametrize(
    ("limit", "code"), [("active_max", "too_many_active"), ("tokens_per_day", "quota_exhausted")]
)
async def test_a_schedule_of_an_owner_over_a_limit_waits_for_room(
    schedules, store, caplog, limit, code
):
    known = Owners({"alice"})
    known.limits_of = lambda owner: OwnerLimits(**{limit: 1})
    acceptor = Acceptor(store.redis, store, store.settings)
    create = generations(acceptor, {"demo": Model(name="demo")}, store.settings, known)
    firings = Firings(store, schedules, {"generation": create}, known)
    one, other = [await plan(schedules, due_ms=1, number=number) for number in (1, 2)]

    await turn(firings)

    both = [await schedules.get(one.id), await schedules.get(other.id)]
    assert sum(bool(schedule.last_id) for schedule in both) == 1, "both fire at once; one has room"
    assert sum(schedule.next_ms == 1 for schedule in both) == 1, "the other stays due"
    assert await firings.due() == []
    assert code in caplog.text or caplog.records[-1].code == code


async def test_without_redis_a_schedule_stays_due(firings, schedules):
    await plan(schedules, due_ms=1)
    real = firings.kinds["generation"]

    async def away(*_):
        raise Unavailable("away")

    firings.kinds["generation"] = away
    await turn(firings)
    firings.kinds["generation"] = real
    await turn(firings)

    assert (await counted(schedules))["schedules_fired"] == 1


async def test_a_deleted_schedule_does_not_fire(firings, schedules, store):
    one = await plan(schedules, due_ms=1)
    (job,) = await firings.due()
    await schedules.delete(one)
    await firings.fire({}, *job.args)

    assert await store.redis.xlen(keys.lane("interactive")) == 0


async def test_an_unknown_kind_is_postponed(firings, schedules):
    one = await plan(schedules, due_ms=1, kind="dream")
    await turn(firings)

    assert (await schedules.get(one.id)).next_ms == 1
    assert await firings.due() == [], "it does not keep this process busy"


async def test_a_job_for_a_finished_due_time_does_nothing(firings, schedules, store):
    """arq may run an old job again."""
    timing = Timing(cron="0 * * * *")
    one = await plan(schedules, due_ms=HOUR_MS, timing=timing)
    await turn(firings)
    await firings.fire({}, one.id, HOUR_MS)
    await firings.fire({}, one.id, 2 * HOUR_MS)

    assert len(await owner_ids(store.redis, "alice", 10)) == 1


async def test_jobs_for_one_due_time_have_one_id_for_a_second(firings, schedules):
    await plan(schedules, due_ms=1)

    assert len({job.id for _ in range(3) for job in await firings.due()}) <= 2
    assert firings.functions[0].timeout_s == module.FIRING_S_MAX
