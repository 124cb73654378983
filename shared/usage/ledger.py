"""The usage of each owner, model and day in Redis, where each generation counts exactly once.

The ledger of an owner has two parts: sums, one hash for each month, and a record with the figures
of each generation that are already in the sums. One script on the owner's tag changes both. A fact
about a generation replaces the figures in the record, and the sums change by the difference. So the
script may be repeated. A record lives for longer than the script accepts facts about its
generation, so a generation whose record has expired is not counted again.

    tr:{usage:<d>}:<month>        hash    '<day> <model>' -> six figures
    tr:{usage:<d>}:counted:<day>  hash    id -> when the fact was written, six figures, model
    tr:{usage:<d>}:forgotten      string  generations up to this time, ms, are not counted
    tr:usage-owners               zset    owner -> when their usage was last counted, ms

Every coroutine may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from shared.config.settings import Settings
from shared.redis import keys
from shared.redis.client import Client, clock_ms, translated
from shared.redis.scripts import Scripts
from shared.usage.figures import Figures, pack, unpack

DAY_S = 86_400
SPARE_MS = 3_600_000  # how much longer than the meta of a generation its facts are accepted
ROWS_OF_MONTH_MAX = 10_000  # days and models of one owner; further models share one row
OTHER_MODELS = "(other models)"
FACTS_AT_ONCE = 200  # of one owner and day, in one call
MONTH_DAYS = 31


class Fact(NamedTuple):
    """The usage of one ended generation.

    Attributes:
        written_ms: when this was known, Redis's clock; of two facts the later one counts.
        created_ms: when the generation was accepted; its usage belongs to this day, UTC.
    """

    owner: str
    generation_id: str
    written_ms: int
    created_ms: int
    model: str
    figures: Figures


class Row(NamedTuple):
    """The usage of one model on one day."""

    day: date
    model: str
    figures: Figures


class Ledger:
    """The usage of all owners on one Redis."""

    def __init__(self, redis: Client, settings: Settings, scripts: Scripts | None = None) -> None:
        self.redis = redis
        self._scripts = scripts or Scripts(redis)
        self._owners_max = settings.usage_owners_max
        self._sums_ms = (settings.usage_days + MONTH_DAYS) * DAY_S * 1000
        # The meta of a generation, from which its facts are read, lives twice the retention.
        self._accepted_ms = round(2 * settings.retention_s * 1000) + SPARE_MS

    async def settle(self, facts: Sequence[Fact]) -> int:
        """Count facts, each generation once, and return how many changed the sums."""
        groups: dict[tuple[str, str], list[Fact]] = {}
        for fact in facts:
            groups.setdefault((fact.owner, day_of(fact.created_ms).isoformat()), []).append(fact)
        if not groups:
            return 0
        # Before the sums: an owner without usage is harmless, but usage must be found.
        await self._note_owners({owner for owner, _ in groups})
        calls = [
            ("usage_settle", self._call(owner, day, some[start : start + FACTS_AT_ONCE]))
            for (owner, day), some in groups.items()
            for start in range(0, len(some), FACTS_AT_ONCE)
        ]
        return sum(map(int, await self._scripts.run_all(calls)))

    def _call(self, owner: str, day: str, facts: Iterable[Fact]) -> tuple[list[str], list[Any]]:
        names = [
            keys.usage_month(owner, day[:7]),
            keys.usage_counted(owner, day),
            keys.usage_forgotten(owner),
        ]
        words: list[Any] = [
            day[8:], self._accepted_ms, self._sums_ms, self._accepted_ms + SPARE_MS,
            ROWS_OF_MONTH_MAX, OTHER_MODELS,
        ]  # fmt: skip
        for fact in facts:
            words += [
                fact.generation_id, fact.written_ms, fact.created_ms,
                pack(fact.figures), fact.model,
            ]  # fmt: skip
        return names, words

    async def _note_owners(self, owners: Iterable[str]) -> None:
        now_ms = await clock_ms(self.redis)
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.zadd(keys.USAGE_OWNERS, dict.fromkeys(owners, now_ms))
            pipeline.zremrangebyscore(keys.USAGE_OWNERS, "-inf", now_ms - self._sums_ms)
            pipeline.zremrangebyrank(keys.USAGE_OWNERS, 0, -1 - self._owners_max)
            await pipeline.execute()

    async def owners(self, after: str = "") -> list[str]:
        """Return the owners that have usage, by name, behind the name `after`.

        There are at most `usage_owners_max`.
        """
        with translated():
            found = await self.redis.zrange(keys.USAGE_OWNERS, 0, -1)
        return sorted(name for raw in found if (name := raw.decode()) > after)

    async def rows(self, owners: Sequence[str], first: date, last: date) -> list[list[Row]]:
        """Return the rows of owners from one day to another, both included; in order."""
        months = list(months_of(first, last))
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for owner in owners:
                for month in months:
                    pipeline.hgetall(keys.usage_month(owner, month))
            replies = await pipeline.execute() if owners else []
        found = []
        for n in range(len(owners)):
            some = replies[n * len(months) : (n + 1) * len(months)]
            pairs = zip(months, some, strict=True)
            rows = [row for month, fields in pairs for row in _rows(month, fields)]
            found.append([row for row in rows if first <= row.day <= last])
        return found

    async def forget(self, owner: str, generation_ms: int) -> bool:
        """Delete the usage of an owner; return whether there was any.

        Facts about generations of before this call that arrive later are not counted.

        Args:
            generation_ms: the longest time from the acceptance of a generation to its end.
        """
        now_ms = await clock_ms(self.redis)
        today = day_of(now_ms)
        first = day_of(now_ms - self._sums_ms) - timedelta(MONTH_DAYS)
        days = (day_of(now_ms - generation_ms - self._accepted_ms - SPARE_MS), today)
        names = [keys.usage_month(owner, month) for month in months_of(first, today)]
        names += [keys.usage_counted(owner, day.isoformat()) for day in days_of(*days)]
        until_ms = generation_ms + self._accepted_ms
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.set(keys.usage_forgotten(owner), now_ms, px=until_ms)
            for name in names:
                pipeline.unlink(name)
            pipeline.zrem(keys.USAGE_OWNERS, owner)
            _, *removed = await pipeline.execute()
        return any(removed)


def ledger_keys(owner: str) -> tuple[str, str]:
    """Return a key of the ledger of an owner, and the index of owners: both have to answer."""
    return keys.usage_forgotten(owner), keys.USAGE_OWNERS


def day_of(ms: int) -> date:
    """Return the day, UTC, of a time in ms since 1970."""
    return datetime.fromtimestamp(ms / 1000, UTC).date()


def days_of(first: date, last: date) -> Iterator[date]:
    """Yield the days from one to another, both included."""
    while first <= last:
        yield first
        first += timedelta(1)


def months_of(first: date, last: date) -> Iterator[str]:
    """Yield the months, as `2026-11`, from that of one day to that of another."""
    year, month = first.year, first.month
    while (year, month) <= (last.year, last.month):
        yield f"{year:04}-{month:02}"
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)


def _rows(month: str, fields: Mapping[bytes, bytes]) -> Iterator[Row]:
    for name, raw in fields.items():
        day, _, model = name.decode().partition(" ")
        yield Row(date.fromisoformat(f"{month}-{day}"), model, unpack(raw))
