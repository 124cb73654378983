"""How far the jobs role is behind: the age of the oldest due thing, and of its own signs of life.

A jobs role that stands still shows nowhere else: its work waits in Redis, and nobody waits for it.
Every coroutine may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.log.meta_reader import MetaReader
from shared.redis import keys
from shared.redis.client import Client, clock_ms, translated

# Signs of life, each with the longest time between two of them in a role that works, s.
POLLED = "polled"  # it has asked every source for due work
SWEPT = "swept"  # it has made a pass over the queue, so arq runs its jobs
BEATS = {POLLED: 1.0, SWEPT: 2.0}
LATE_S = 60.0  # a thing that has been due for so long, or a sign that is so old, is a fault
BATCHES_MAX = 100  # unfinished batches, the oldest, whose leases are looked at
BEAT_KEPT_MS = 86_400_000  # a deployment that runs no jobs role any more is healthy after a day


@dataclass(frozen=True, slots=True)
class JobsLag:
    """The lag of the jobs role, s.

    Attributes:
        due: `schedules`, `webhooks`, `batches`: for how long the oldest thing has been due. A batch
            is due while no jobs process holds it. 0.0: nothing is due.
        beats: the age of the last sign of each kind in `BEATS`; absent: none is known.
    """

    due: Mapping[str, float]
    beats: Mapping[str, float]

    @property
    def oldest(self) -> tuple[str, float]:
        """The kind and the age of the oldest due thing."""
        return max(self.due.items(), key=lambda pair: pair[1])

    @property
    def is_late(self) -> bool:
        """Whether an operator should look at the jobs role."""
        return self.oldest[1] > LATE_S or any(age_s > LATE_S for age_s in self.beats.values())


async def note_beat(redis: Client, name: str) -> None:
    """Note a sign of life of the jobs role."""
    now_ms = await clock_ms(redis)
    with translated():
        pipeline = redis.pipeline(transaction=False)
        pipeline.hset(keys.JOBS_BEATS, name, str(now_ms))
        pipeline.pexpire(keys.JOBS_BEATS, BEAT_KEPT_MS)
        await pipeline.execute()


async def read_lag(redis: Client) -> JobsLag:
    """Return the lag of the jobs role."""
    now_ms = await clock_ms(redis)
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for index in (keys.SCHEDULES, keys.HOOKS_WAITING, keys.HOOKS_OWNERS):
            pipeline.zrange(index, 0, 0, withscores=True)
        pipeline.zrange(keys.BATCHES_ACTIVE, 0, BATCHES_MAX - 1, withscores=True)
        pipeline.hgetall(keys.JOBS_BEATS)
        schedules, waiting, owners, batches, beats = await pipeline.execute()
    due = {
        "schedules": _age_s(now_ms, schedules),
        "webhooks": max(_age_s(now_ms, waiting), _age_s(now_ms, owners)),
        "batches": await _idle_s(redis, now_ms, batches),
    }
    seen = {name: beats[name.encode()] for name in BEATS if name.encode() in beats}
    return JobsLag(due, {name: _since_s(now_ms, float(at_ms)) for name, at_ms in seen.items()})


async def _idle_s(redis: Client, now_ms: int, batches: Sequence[tuple[bytes, float]]) -> float:
    """Return for how long no jobs process has held the batch that has waited longest."""
    if not batches:
        return 0.0
    tops = await MetaReader(redis).known_tops([name.decode() for name, _ in batches])
    idle = [
        _since_s(now_ms, max(top.lease_ms, top.waiting_since_ms, created_ms))
        for top, (_, created_ms) in zip(tops, batches, strict=True)
        if top is not None and top.status in ("queued", "running")
    ]
    return max(idle, default=0.0)


def _age_s(now_ms: int, first: Sequence[tuple[bytes, float]]) -> float:
    return _since_s(now_ms, first[0][1]) if first else 0.0


def _since_s(now_ms: int, at_ms: float) -> float:
    return round(max(0.0, now_ms - at_ms) / 1000, 3)
