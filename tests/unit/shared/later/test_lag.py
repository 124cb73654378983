"""The age of the oldest due thing of the jobs role, and of its signs of life."""

from __future__ import annotations

import pytest

from shared.later.lag import LATE_S, POLLED, SWEPT, note_beat, read_lag
from shared.redis import keys
from shared.redis.client import clock_ms


async def due_at(redis, key: str, age_s: float) -> None:
    await redis.zadd(key, {"thing": await clock_ms(redis) - age_s * 1000})


async def test_without_work_nothing_is_due_and_nothing_is_late(redis) -> None:
    lag = await read_lag(redis)

    assert lag.due == {"schedules": 0.0, "webhooks": 0.0, "batches": 0.0}
    assert (lag.beats, lag.is_late) == ({}, False)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        (keys.SCHEDULES, "schedules"),
        (keys.HOOKS_WAITING, "webhooks"),
        (keys.HOOKS_OWNERS, "webhooks"),
    ],
    ids=["schedules", "webhooks that wait", "webhooks of owners"],
)
async def test_what_should_have_been_done_makes_the_role_late(redis, key, what) -> None:
    await due_at(redis, key, 2 * LATE_S)

    lag = await read_lag(redis)

    assert lag.oldest[0] == what
    assert 2 * LATE_S <= lag.oldest[1] < 2 * LATE_S + 30
    assert lag.is_late


async def test_work_of_later_is_not_due(redis) -> None:
    await due_at(redis, keys.SCHEDULES, -3_600)

    assert not (await read_lag(redis)).due["schedules"]


@pytest.mark.parametrize("is_held", [True, False])
async def test_a_batch_is_due_while_no_process_holds_it(redis, is_held) -> None:
    now_ms = await clock_ms(redis)
    await redis.zadd(keys.BATCHES_ACTIVE, {"batch_1": now_ms - 500_000})
    lease_ms = now_ms + 5_000 if is_held else now_ms - 100_000
    await redis.hset(keys.meta("batch_1"), mapping={"status": "running", "lease": lease_ms})

    due_s = (await read_lag(redis)).due["batches"]

    assert due_s == 0.0 if is_held else 100 <= due_s < 130


async def test_an_old_sign_of_life_makes_the_role_late(redis) -> None:
    await note_beat(redis, POLLED)
    await note_beat(redis, SWEPT)
    assert not (await read_lag(redis)).is_late

    old_ms = await clock_ms(redis) - round(2 * LATE_S * 1000)
    await redis.hset(keys.JOBS_BEATS, SWEPT, str(old_ms))

    lag = await read_lag(redis)
    assert lag.is_late and lag.beats[SWEPT] >= 2 * LATE_S > lag.beats[POLLED]
