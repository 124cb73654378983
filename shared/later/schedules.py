"""Schedules: requests that start a generation or a batch at a time, once or repeatedly.

A schedule holds a request that was validated when it arrived, and its next due time. A firing
creates a generation or batch whose id is derived from the schedule and the due time. So it is
created once, however many processes try, and how often. After an outage a schedule fires once for
all missed due times. Every change is one script; all keys carry `{jobs}`. This module knows no kind
of request: jobs/schedules.py fires them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, cast
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from shared.errors import NotFound
from shared.log.ids import derived_id
from shared.redis import keys
from shared.redis.client import Client, translated
from shared.redis.scripts import Scripts

FINISHED_KEPT_S = 86_400.0  # until the record of a finished schedule expires
KEY_KEPT_S = 86_400.0  # until an idempotency key expires
PREFIX = "sched_"
# The fields of a record that a normal read fetches: all except the body, up to a megabyte.
SHOWN_FIELDS = (
    b"owner", b"kind", b"run_at", b"cron", b"timezone", b"created", b"next", b"last", b"last_id",
    b"error_code", b"error_message",
)  # fmt: skip

Firing = Literal["", "first", "repeat"]


class Timing(NamedTuple):
    """The due times: once at `run_at_ms`, Redis's clock, or by `cron` in `timezone`."""

    run_at_ms: int = 0
    cron: str = ""
    timezone: str = "UTC"

    def next_ms(self, after_ms: int) -> int | None:
        """Return the first due time of the cron after `after_ms`; None: there is none."""
        if not self.cron:
            return None
        zone = UTC if self.timezone == "UTC" else ZoneInfo(self.timezone)
        after = datetime.fromtimestamp(after_ms / 1000, zone)
        try:
            for tick in CronSim(self.cron, after):
                if tick.timestamp() * 1000 > after_ms:
                    return round(tick.timestamp() * 1000)
        except (CronSimError, OverflowError):
            pass
        return None


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule. Times are Redis's, ms since 1970.

    Attributes:
        kind: what it starts: `generation` or `batch`.
        body: the request, JSON, up to a megabyte; empty: not read, or the schedule is finished.
        next_ms: the next due time; None: finished.
        last_ms: when it last fired; 0: never.
        last_id: the generation or batch that the last firing created.
        error: code and message, if the last firing was refused.
    """

    id: str
    owner: str
    kind: str
    body: bytes
    timing: Timing
    created_ms: int
    next_ms: int | None
    last_ms: int
    last_id: str
    error: tuple[str, str] | None

    def made_id(self, prefix: str, due_ms: int) -> str:
        """Return the id of the generation or batch that the firing of `due_ms` creates."""
        return derived_id(prefix, self.id, due_ms)

    def request(self) -> dict[str, Any]:
        """Return the request of a firing; its metadata names the schedule."""
        return marked(msgspec.json.decode(self.body), self.id)


def marked(body: Mapping[str, Any], schedule_id: str) -> dict[str, Any]:
    """Return a request whose metadata also names the schedule, for listings and filters."""
    metadata = body.get("metadata") or {}
    return {**body, "metadata": {**metadata, "schedule": schedule_id}}


class Added(NamedTuple):
    """The result of `Schedules.add`; `how` is `ok`, `exists`, `full` or `mismatch`."""

    how: str
    schedule_id: str


class Schedules:
    """The schedules on one Redis.

    Every method may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.

    Args:
        schedules_max: unfinished schedules of one owner.
    """

    def __init__(self, redis: Client, schedules_max: int) -> None:
        self.redis = redis
        self.schedules_max = schedules_max
        self.scripts = Scripts(redis)

    async def add(self, schedule: Schedule, *, key: str = "", digest: str = "") -> Added:
        """Add a schedule, or find the schedule of the same key.

        Args:
            key: the client's Idempotency-Key; empty: none.
            digest: of the request; the same key with another digest is a `mismatch`.
        """
        record, due, owned, unfinished = self._names(schedule)
        guard = keys.schedule_key(schedule.owner, key) if key else record
        fields: list[Any] = [
            "owner", schedule.owner, "kind", schedule.kind, "body", schedule.body,
            "run_at", schedule.timing.run_at_ms, "cron", schedule.timing.cron,
            "timezone", schedule.timing.timezone,
        ]  # fmt: skip
        args = [
            schedule.id, self.schedules_max, schedule.next_ms, digest if key else "",
            round(KEY_KEPT_S * 1000), *fields,
        ]  # fmt: skip
        names = [record, due, owned, unfinished, guard]
        reply = await self.scripts.run("schedule_add", names, args)
        how = reply[0].decode()
        return Added(how, reply[1].decode() if how == "exists" else schedule.id)

    async def get(self, schedule_id: str, *, with_body: bool = False) -> Schedule | None:
        """Return a schedule, by default without its body; None: absent."""
        names = [*SHOWN_FIELDS, b"body"] if with_body else SHOWN_FIELDS
        return (await self._read([schedule_id], names))[0]

    async def page(self, owner: str, limit: int, *, before_ms: int | None) -> list[Schedule]:
        """Return up to `limit` schedules of an owner, newest first.

        Args:
            before_ms: only schedules created before this time; None: all.
        """
        highest = "+inf" if before_ms is None else f"({before_ms}"
        found: list[Schedule] = []
        start = 0
        while len(found) < limit:
            with translated():
                raws = await self.redis.zrevrangebyscore(
                    keys.schedules_of(owner), highest, "-inf", start=start, num=limit
                )
            read = await self._read([raw.decode() for raw in raws])
            found += [
                schedule for schedule in read if schedule is not None and schedule.owner == owner
            ]
            start += len(raws)
            if len(raws) < limit:
                break
        return found[:limit]

    async def unfinished(self, limit: int, *, after: str) -> list[Schedule]:
        """Return up to `limit` unfinished schedules of all owners, by their next due time.

        Args:
            after: the last id of the page before; empty: the first page. A firing moves a schedule
                in this order, so pages may miss or repeat it.

        Raises:
            NotFound: `after` is not an unfinished schedule.
        """
        rank = await self._rank_after(after) if after else 0
        found: list[Schedule] = []
        while len(found) < limit:
            with translated():
                raws = await self.redis.zrange(keys.SCHEDULES, rank, rank + limit - 1)
            schedules = await self._read([raw.decode() for raw in raws])
            found += [schedule for schedule in schedules if schedule is not None]
            rank += len(raws)
            if len(raws) < limit:
                break
        return found[:limit]

    async def _rank_after(self, schedule_id: str) -> int:
        with translated():
            rank = await self.redis.zrank(keys.SCHEDULES, schedule_id.encode("utf-8", "replace"))
        if rank is None:
            raise NotFound("schedule: after")
        return int(rank) + 1

    async def delete(self, schedule: Schedule) -> bool:
        """Delete a schedule; False: absent. What it has started stays."""
        names = self._names(schedule)
        return bool(await self.scripts.run("schedule_delete", names, [schedule.id]))

    # For firings

    async def due(self, now_ms: int, limit: int) -> list[tuple[str, int]]:
        """Return up to `limit` (id, due time) of schedules that are due, the oldest first."""
        with translated():
            found = await self.redis.zrangebyscore(
                keys.SCHEDULES, "-inf", now_ms, start=0, num=limit
            )
            pipeline = self.redis.pipeline(transaction=False)
            for raw in found:
                pipeline.hget(keys.schedule(raw.decode()), "next")
            times = await pipeline.execute()
        gone = [raw for raw, time in zip(found, times, strict=True) if not time]
        if gone:
            with translated():
                await self.redis.zrem(keys.SCHEDULES, *gone)
        return [(raw.decode(), int(time)) for raw, time in zip(found, times, strict=True) if time]

    async def begin(self, schedule: Schedule, due_ms: int) -> Firing:
        """Begin a firing. Empty: it is done or the schedule is deleted; `repeat`: begun before."""
        reply = await self.scripts.run("schedule_fire", [keys.schedule(schedule.id)], [due_ms])
        return cast(Firing, reply.decode())

    async def finish(
        self, schedule: Schedule, due_ms: int, now_ms: int, fields: Mapping[str, str | int]
    ) -> bool:
        """End a firing: set the next due time after now, or finish the schedule.

        Args:
            fields: of the record: the result of this firing.

        Returns:
            False: another process has ended this firing.
        """
        record, due, _, unfinished = self._names(schedule)
        next_ms = schedule.timing.next_ms(max(now_ms, due_ms))
        pairs = [part for pair in fields.items() for part in pair]
        args = [
            schedule.id, due_ms, "" if next_ms is None else next_ms,
            round(FINISHED_KEPT_S * 1000), *pairs,
        ]  # fmt: skip
        return bool(await self.scripts.run("schedule_done", [record, due, unfinished], args))

    async def postpone(self, schedule_id: str, until_ms: int) -> None:
        """Try a firing again at `until_ms`. The due time stays the same."""
        with translated():
            await self.redis.zadd(keys.SCHEDULES, {schedule_id: until_ms}, xx=True)

    def _names(self, schedule: Schedule) -> tuple[str, str, str, str]:
        return (
            keys.schedule(schedule.id),
            keys.SCHEDULES,
            keys.schedules_of(schedule.owner),
            keys.schedules_unfinished(schedule.owner),
        )

    async def _read(
        self, ids: Sequence[str], names: Sequence[bytes] = SHOWN_FIELDS
    ) -> list[Schedule | None]:
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for schedule_id in ids:
                pipeline.hmget(keys.schedule(schedule_id), list(names))
            replies = await pipeline.execute()
        found = [
            {name: value for name, value in zip(names, reply, strict=True) if value is not None}
            for reply in replies
        ]
        return [
            _parse(schedule_id, fields) if fields else None
            for schedule_id, fields in zip(ids, found, strict=True)
        ]


def _parse(schedule_id: str, fields: Mapping[bytes, bytes]) -> Schedule:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode()

    def number(name: bytes) -> int:
        return int(fields.get(name) or 0)

    code = text(b"error_code")
    return Schedule(
        id=schedule_id,
        owner=text(b"owner"),
        kind=text(b"kind"),
        body=fields.get(b"body", b""),
        timing=Timing(number(b"run_at"), text(b"cron"), text(b"timezone") or "UTC"),
        created_ms=number(b"created"),
        next_ms=number(b"next") or None,
        last_ms=number(b"last"),
        last_id=text(b"last_id"),
        error=(code, text(b"error_message")) if code else None,
    )
