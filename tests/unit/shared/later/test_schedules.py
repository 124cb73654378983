"""Schedules in Redis: due times, limits, and one firing per due time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from shared.later.schedules import FINISHED_KEPT_S, Schedule, Schedules, Timing, marked
from shared.log.ids import is_generation_id
from shared.redis import keys

BERLIN = "Europe/Berlin"
ROOT = Path(__file__).resolve().parents[4]


def at(text, zone="UTC"):
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def ticks(cron, zone, after, count):
    """Return the next due times in local time."""
    timing, found, now_ms = Timing(cron=cron, timezone=zone), [], at(after, zone)
    for _ in range(count):
        now_ms = timing.next_ms(now_ms)
        found.append(datetime.fromtimestamp(now_ms / 1000, ZoneInfo(zone)).isoformat()[:16])
    return found


# When


def test_a_cron_is_due_at_its_ticks_in_its_zone():
    assert ticks("30 8 * * MON-FRI", BERLIN, "2026-11-20T09:00", 2) == [
        "2026-11-23T08:30",
        "2026-11-24T08:30",
    ]
    assert Timing(cron="0 8 * * *", timezone=BERLIN).next_ms(at("2026-11-20T00:00")) == at(
        "2026-11-20T07:00"
    )


def test_a_tick_is_after_the_moment_never_at_it():
    timing = Timing(cron="* * * * *")

    assert timing.next_ms(at("2026-11-20T08:00")) == at("2026-11-20T08:01")
    assert timing.next_ms(at("2026-11-20T08:00") - 1) == at("2026-11-20T08:00")
    assert timing.next_ms(at("2026-11-20T08:00") + 999) == at("2026-11-20T08:01")


def test_a_time_skipped_by_summer_time_comes_after_the_change():
    assert ticks("30 2 * * *", BERLIN, "2026-03-28T12:00", 2) == [
        "2026-03-29T03:00",
        "2026-03-30T02:30",
    ]


def test_a_time_repeated_by_winter_time_comes_once():
    assert ticks("30 2 * * *", BERLIN, "2026-10-24T12:00", 2) == [
        "2026-10-25T02:30",
        "2026-10-26T02:30",
    ]


def test_an_hourly_cron_ignores_summer_time():
    timing, now_ms, found = Timing(cron="0 * * * *", timezone=BERLIN), at("2026-10-24T22:30"), []
    for _ in range(4):
        now_ms = timing.next_ms(now_ms)
        found.append(now_ms)

    assert {later - earlier for earlier, later in zip(found, found[1:], strict=False)} == {
        3_600_000
    }


def test_a_cron_without_a_next_time_returns_none():
    assert Timing(run_at_ms=5).next_ms(0) is None
    assert Timing(cron="0 0 31 4 */2").next_ms(at("2026-11-20T00:00")) is None


# What is kept


@pytest.fixture
def schedules(redis):
    return Schedules(redis, 3)


def schedule(number=1, *, next_ms=1_000, owner="alice", timing=None):
    return Schedule(
        id=f"sched_{number:026}",
        owner=owner,
        kind="generation",
        body=b'{"prompt":"Hi","metadata":{"a":1}}',
        timing=timing or Timing(run_at_ms=next_ms),
        created_ms=0,
        next_ms=next_ms,
        last_ms=0,
        last_id="",
        error=None,
    )


async def test_an_added_schedule_exists_and_becomes_due(schedules):
    one = schedule()
    assert (await schedules.add(one)).how == "ok"

    found = await schedules.get(one.id, with_body=True)
    assert found.created_ms > 10**12
    assert (found.owner, found.kind, found.body) == (one.owner, one.kind, one.body)
    assert (found.timing, found.next_ms) == (one.timing, 1_000)
    assert (await schedules.get(one.id)).body == b"", "a megabyte that is not shown"
    assert await schedules.due(999, 10) == []
    assert await schedules.due(1_000, 10) == [(one.id, 1_000)]


async def test_each_owner_has_a_limit(schedules):
    for number in range(3):
        assert (await schedules.add(schedule(number))).how == "ok"

    assert (await schedules.add(schedule(3))).how == "full"
    assert (await schedules.add(schedule(4, owner="bob"))).how == "ok"
    assert await schedules.get(schedule(3).id) is None


async def test_simultaneous_adds_do_not_exceed_the_limit(schedules):
    async with asyncio.TaskGroup() as tasks:
        added = [tasks.create_task(schedules.add(schedule(number))) for number in range(9)]

    assert sorted(task.result().how for task in added) == ["full"] * 6 + ["ok"] * 3


async def test_finished_and_deleted_schedules_do_not_count(schedules):
    for number in range(3):
        await schedules.add(schedule(number))
    await schedules.finish(await schedules.get(schedule(0).id), 1_000, 2_000, {"last": 2_000})
    await schedules.delete(schedule(1))

    assert (await schedules.add(schedule(3))).how == "ok"
    assert (await schedules.add(schedule(4))).how == "ok"
    assert (await schedules.add(schedule(5))).how == "full"


async def test_a_key_adds_one_schedule(schedules):
    first = await schedules.add(schedule(1), key="k", digest="d")
    again = await schedules.add(schedule(2), key="k", digest="d")
    other = await schedules.add(schedule(3), key="k", digest="e")
    strange = await schedules.add(schedule(4, owner="bob"), key="k", digest="e")

    assert (first.how, again.how, other.how, strange.how) == ("ok", "exists", "mismatch", "ok")
    assert again.schedule_id == schedule(1).id
    assert await schedules.get(schedule(2).id) is None


async def test_a_page_is_the_owners_newest_first(schedules):
    for number in range(3):
        await schedules.add(schedule(number))
        await schedules.redis.zadd(keys.schedules_of("alice"), {schedule(number).id: number + 1})
    await schedules.add(schedule(7, owner="bob"))

    page = await schedules.page("alice", 2, before_ms=None)
    rest = await schedules.page("alice", 2, before_ms=2)

    assert [one.id for one in page] == [schedule(2).id, schedule(1).id]
    assert [one.id for one in rest] == [schedule(0).id]


async def test_a_page_is_full_although_some_records_expired(schedules):
    """A finished record expires after a day; its index entry stays longer."""
    schedules.schedules_max = 9
    for number in range(5):
        await schedules.add(schedule(number))
        await schedules.redis.zadd(keys.schedules_of("alice"), {schedule(number).id: number + 1})
    await schedules.redis.delete(keys.schedule(schedule(4).id), keys.schedule(schedule(3).id))

    page = await schedules.page("alice", 2, before_ms=None)

    assert [one.id for one in page] == [schedule(2).id, schedule(1).id]


async def test_a_deleted_schedule_leaves_all_indexes(schedules):
    one = schedule()
    await schedules.add(one)

    assert await schedules.delete(one)
    assert not await schedules.delete(one)
    assert await schedules.get(one.id) is None
    assert [key async for key in schedules.redis.scan_iter("tr:*")] == []


async def test_a_schedule_without_a_record_leaves_the_due_index(schedules):
    await schedules.redis.zadd(keys.SCHEDULES, {"sched_gone": 1})

    assert await schedules.due(10, 10) == []
    assert await schedules.redis.zcard(keys.SCHEDULES) == 0


# Firing


async def test_a_firing_begins_once_for_its_due_time(schedules):
    one = schedule()
    await schedules.add(one)

    assert await schedules.begin(one, 1_000) == "first"
    assert await schedules.begin(one, 1_000) == "repeat"
    assert await schedules.begin(one, 999) == ""
    assert await schedules.finish(one, 1_000, 2_000, {"last": 2_000, "last_id": "gen_1"})
    assert await schedules.begin(one, 1_000) == ""
    assert not await schedules.finish(one, 1_000, 2_000, {"last": 9_000})
    found = await schedules.get(one.id)
    assert (found.last_ms, found.last_id) == (2_000, "gen_1")


async def test_a_single_schedule_is_finished_and_drops_its_body(schedules):
    one = schedule()
    await schedules.add(one)
    await schedules.finish(one, 1_000, 2_000, {"last": 2_000, "last_id": "gen_1"})

    found = await schedules.get(one.id)
    assert found.next_ms is None and found.body == b""
    assert 0 < await schedules.redis.pttl(keys.schedule(one.id)) <= FINISHED_KEPT_S * 1000
    assert await schedules.due(10**15, 10) == []


async def test_after_an_outage_it_fires_once(schedules):
    """It fires for the first missed tick, and continues with the first tick after now."""
    due_ms, now = at("2026-11-20T08:00"), at("2026-11-20T10:07")
    one = schedule(next_ms=due_ms, timing=Timing(cron="*/5 * * * *"))
    await schedules.add(one)
    await schedules.begin(one, due_ms)
    await schedules.finish(one, due_ms, now, {"last": now})

    assert (await schedules.get(one.id)).next_ms == at("2026-11-20T10:10")
    assert await schedules.due(now, 10) == []


async def test_a_clock_that_was_set_back_does_not_fire_a_time_again(schedules):
    due_ms = at("2026-11-20T08:00")
    one = schedule(next_ms=due_ms, timing=Timing(cron="0 * * * *"))
    await schedules.add(one)
    await schedules.finish(one, due_ms, due_ms - 7_200_000, {"last": 1})

    assert (await schedules.get(one.id)).next_ms == at("2026-11-20T09:00")


async def test_a_postponed_schedule_keeps_its_due_time(schedules):
    one = schedule()
    await schedules.add(one)
    await schedules.postpone(one.id, 5_000)

    assert await schedules.due(4_999, 10) == []
    assert await schedules.due(5_000, 10) == [(one.id, 1_000)]


async def test_a_deleted_schedule_cannot_be_postponed(schedules):
    await schedules.postpone("sched_gone", 5_000)

    assert await schedules.redis.exists(keys.SCHEDULES) == 0


def test_the_id_of_a_firing_is_derived():
    one, other = schedule(1), schedule(2)
    made = one.made_id("gen_", 1_000)

    assert made == one.made_id("gen_", 1_000)
    assert is_generation_id(made)
    assert len({made, one.made_id("gen_", 2_000), other.made_id("gen_", 1_000)}) == 3


def test_the_metadata_of_a_firing_names_the_schedule():
    assert schedule(1).request()["metadata"] == {"a": 1, "schedule": schedule(1).id}
    assert marked({"metadata": None}, "s")["metadata"] == {"schedule": "s"}
    assert marked({}, "s") == {"metadata": {"schedule": "s"}}


@pytest.mark.parametrize("how", ["flushed", "finished"])
async def test_finishing_a_deleted_schedule_does_nothing(schedules, how):
    one = schedule()
    await schedules.add(one)
    if how == "flushed":
        await schedules.redis.flushall()
    else:
        await schedules.delete(one)

    assert not await schedules.finish(one, 1_000, 2_000, {"last": 1})
    assert [key async for key in schedules.redis.scan_iter("tr:*")] == []


def test_zones_are_known_without_time_zone_files():
    """As in a slim container: PYTHONTZPATH takes the files of this machine away."""
    program = (
        "from shared.later.schedules import Timing\n"
        "print(Timing(cron='0 8 * * *', timezone='Asia/Tokyo').next_ms(0))"
    )
    command = [sys.executable, "-c", program]
    found = subprocess.run(
        command, env={"PYTHONTZPATH": ""}, cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert found.stdout.strip() == str(23 * 3_600_000), found.stderr
