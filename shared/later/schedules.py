"""Schedules: what is to be started at a time, or again and again.

A schedule holds a request that was found right when it came, and when it is due next. What a firing
makes has an id that follows from the schedule and the due time, so that it is made once however
often and by how many processes that is tried. After an outage it fires once for all that was
missed. Every change is one script; all keys carry `{jobs}`. Knows no kind of request:
jobs/schedules.py fires them.
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

FINISHED_KEPT_S = 86_400.0  # so long it can be read what became of one that is over
KEY_KEPT_S = 86_400.0
PREFIX = "sched_"
# What is read of a record by whoever looks at it: all but the body, which may be a megabyte long.
SHOWN_FIELDS = (
    b"owner", b"kind", b"run_at", b"cron", b"timezone", b"created", b"next", b"last", b"last_id",
    b"error_code", b"error_message",
)  # fmt: skip

Firing = Literal["", "first", "repeat"]


class Timing(NamedTuple):
    """When: once at `run_at_ms`, or by `cron` in `timezone`."""

    run_at_ms: int = 0
    cron: str = ""
    timezone: str = "UTC"

    def next_ms(self, after_ms: int) -> int | None:
        """Return the first due time of a cron after a moment; None: never again."""
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
        kind: of what it starts: `generation`, `batch`.
        body: the request, JSON, up to a megabyte; empty once it is over, and unless asked for.
        next_ms: None: it is over.
        error: why the last firing made nothing: code and message.
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
        """Return the id of what the firing of one due time makes."""
        return derived_id(prefix, self.id, due_ms)

    def request(self) -> dict[str, Any]:
        """Return the body of what a firing makes."""
        return marked(msgspec.json.decode(self.body), self.id)


def marked(body: Mapping[str, Any], schedule_id: str) -> dict[str, Any]:
    """Return a body whose metadata names the schedule, so that what it starts is found by it."""
    metadata = body.get("metadata") or {}
    return {**body, "metadata": {**metadata, "schedule": schedule_id}}


class Added(NamedTuple):
    """What became of an `add`: `ok`, `exists`, `full` or `mismatch`."""

    how: str
    schedule_id: str


class Schedules:
    """The schedules on one Redis. Every method may raise `Unavailable`: repeating it is safe."""

    def __init__(self, redis: Client, schedules_max: int) -> None:
        """Args: schedules_max: unfinished ones of one owner."""
        self.redis = redis
        self.schedules_max = schedules_max
        self.scripts = Scripts(redis)

    async def add(self, schedule: Schedule, *, key: str = "", digest: str = "") -> Added:
        """Add a schedule, or find what the same key has added.

        Args:
            key: a client's Idempotency-Key.
            digest: of the request; the same key with another one is a `mismatch`.
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
        """Return a schedule; None: there is none."""
        names = [*SHOWN_FIELDS, b"body"] if with_body else SHOWN_FIELDS
        return (await self._read([schedule_id], names))[0]

    async def page(self, owner: str, limit: int, *, before_ms: int | None) -> list[Schedule]:
        """Return an owner's schedules, newest first; those made before `before_ms`."""
        highest = "+inf" if before_ms is None else f"({before_ms}"
        found: list[Schedule] = []
        start = 0
        while len(found) < limit:
            with translated():
                raws = await self.redis.zrevrangebyscore(
                    keys.schedules_of(owner), highest, "-inf", start=start, num=limit
                )
            read = await self._read([raw.decode() for raw in raws])
            found += [one for one in read if one is not None and one.owner == owner]
            start += len(raws)
            if len(raws) < limit:
                break
        return found[:limit]

    async def unfinished(self, limit: int, *, after: str) -> list[Schedule]:
        """Return up to `limit` schedules of all owners that are not over, the next one due first.

        Args:
            after: the id that the page follows. A schedule changes its place when it fires or is
                postponed, so one may be missed or come twice between two pages.

        Raises:
            NotFound: `after` is no schedule that is due again.
        """
        place = await self._place_after(after) if after else 0
        found: list[Schedule] = []
        while len(found) < limit:
            with translated():
                raws = await self.redis.zrange(keys.SCHEDULES, place, place + limit - 1)
            found += [one for one in await self._read([raw.decode() for raw in raws]) if one]
            place += len(raws)
            if len(raws) < limit:
                break
        return found[:limit]

    async def _place_after(self, schedule_id: str) -> int:
        with translated():
            rank = await self.redis.zrank(keys.SCHEDULES, schedule_id.encode("utf-8", "replace"))
        if rank is None:
            raise NotFound("schedule: after")
        return int(rank) + 1

    async def delete(self, schedule: Schedule) -> bool:
        """Delete a schedule; what it has made stays."""
        names = self._names(schedule)
        return bool(await self.scripts.run("schedule_delete", names, [schedule.id]))

    # For whoever fires them

    async def due(self, now_ms: int, limit: int) -> list[tuple[str, int]]:
        """Return schedules that are due, and for which time; the longest waiting first."""
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
        """Begin a firing: `''`: not wanted any more; `repeat`: it may have been begun before."""
        reply = await self.scripts.run("schedule_fire", [keys.schedule(schedule.id)], [due_ms])
        return cast(Firing, reply.decode())

    async def finish(
        self, schedule: Schedule, due_ms: int, now_ms: int, fields: Mapping[str, str | int]
    ) -> bool:
        """End a firing: the schedule is due at the first time after now, or over."""
        record, due, _, unfinished = self._names(schedule)
        next_ms = schedule.timing.next_ms(max(now_ms, due_ms))
        pairs = [part for pair in fields.items() for part in pair]
        args = [
            schedule.id, due_ms, "" if next_ms is None else next_ms,
            round(FINISHED_KEPT_S * 1000), *pairs,
        ]  # fmt: skip
        return bool(await self.scripts.run("schedule_done", [record, due, unfinished], args))

    async def postpone(self, schedule_id: str, until_ms: int) -> None:
        """Look at it again later; what it is due for stays."""
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
