"""The slow parts of the console's picture: batches, dead letters, schedules, usage, recent ids.

One part is read in each tick, in turn, within the number of commands that the sampler gives. So
each part is a few ticks old. Owners are those whose usage was counted last, and those who have
unfinished generations: nothing in Redis names all owners.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from api.console.usage_days import DaySums, UsageDays
from shared.batches.record import Batch, parse_batch
from shared.config.settings import Settings
from shared.console.board import pairs
from shared.later.dead_letters import DeadLetter, index_command, letter_of, record_command
from shared.later.schedules import Schedule, Schedules
from shared.redis import keys
from shared.redis.client import Client, Command, raise_errors
from shared.redis.pipeline import ClientPipeline
from shared.usage.figures import Figures, unpack
from shared.usage.ledger import day_of

RECENT_OF_OWNER = 200  # newest ids of one owner
RECENT_MAX = 1_000
BATCHES_OF_OWNER = 3
BATCHES_MAX = 50
USAGE_ROWS_MAX = 50
DEAD_SHOWN = 50


class Background:
    """The slow parts on one Redis.

    Attributes:
        recent_ids: newest generations of the owners, newest first.
        batches: by id; ended ones stay as they were read.
        schedules: the next due ones.
        usage: of this month (UTC): owner, model, figures; the rows with the most tokens.
        usage_days: tokens of each day of this month, by owner and by model.
        dead_total: webhooks that were given up.
    """

    def __init__(self, redis: Client, settings: Settings) -> None:
        self._pipeline = ClientPipeline(redis)
        self._schedules = Schedules(redis, settings.schedules_max)
        self.recent_ids: list[str] = []
        self.batches: dict[str, Batch] = {}
        self.schedules: list[Schedule] = []
        self.usage: list[tuple[str, str, Figures]] = []
        self.usage_days = UsageDays()
        self.dead_total = 0
        self._dead: dict[tuple[str, int], DeadLetter | None] = {}  # by id and time
        self._owners: list[str] = []
        self._turn = 0
        self._parts: Sequence[Callable[[int, int], Awaitable[int]]] = (
            self._read_recent,
            self._read_active_batches,
            self._read_schedules,
            self._read_usage,
            self._read_ended_batches,
            self._read_dead_letters,
        )

    async def read_next(self, commands: int, now_ms: int, owners: Sequence[str]) -> int:
        """Read the next part with at most `commands` commands; return how many it took.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        part = self._parts[self._turn % len(self._parts)]
        self._turn += 1
        if self._turn % len(self._parts) == 1:
            (reply,) = await self._ask([("ZREVRANGE", keys.USAGE_OWNERS, 0, commands - 1)])
            counted = [raw.decode() for raw in reply]
            self._owners = list(dict.fromkeys([*owners, *counted]))
            return 1 + await part(commands - 1, now_ms)
        return await part(commands, now_ms)

    async def _read_recent(self, commands: int, now_ms: int) -> int:
        del now_ms
        owners = self._owners[:commands]
        replies = await self._ask(
            [
                ("ZREVRANGE", keys.owner(owner), 0, RECENT_OF_OWNER - 1, "WITHSCORES")
                for owner in owners
            ]
        )
        found = [pair for reply in replies for pair in _scored(reply)]
        found.sort(key=lambda pair: pair[1], reverse=True)
        self.recent_ids = [name for name, _ in found[:RECENT_MAX]]
        return len(owners)

    async def _read_active_batches(self, commands: int, now_ms: int) -> int:
        del now_ms
        (reply,) = await self._ask([("ZREVRANGE", keys.BATCHES_ACTIVE, 0, commands - 2)])
        return 1 + await self._load_batches([raw.decode() for raw in reply][: commands - 1])

    async def _read_ended_batches(self, commands: int, now_ms: int) -> int:
        """Read the newest batches of owners, and those that were unfinished when last read."""
        del now_ms
        open_ids = [batch.id for batch in self.batches.values() if not batch.is_final]
        half = commands // 2
        owners = self._owners[:half]
        replies = await self._ask(
            [("ZREVRANGE", keys.batches(owner), 0, BATCHES_OF_OWNER - 1) for owner in owners]
        )
        newest = [raw.decode() for reply in replies for raw in reply]
        unknown = [name for name in newest if name not in self.batches]
        ids = list(dict.fromkeys([*open_ids, *unknown]))[: commands - len(owners)]
        return len(owners) + await self._load_batches(ids)

    async def _load_batches(self, ids: Sequence[str]) -> int:
        replies = await self._ask([("HGETALL", keys.batch(name)) for name in ids])
        for name, reply in zip(ids, replies, strict=True):
            if fields := dict(pairs(reply)):
                self.batches[name] = parse_batch(name, fields)
            else:
                self.batches.pop(name, None)
        newest = sorted(self.batches.values(), key=lambda each: each.created_at_ms, reverse=True)
        self.batches = {batch.id: batch for batch in newest[:BATCHES_MAX]}
        return len(ids)

    async def _read_schedules(self, commands: int, now_ms: int) -> int:
        del now_ms
        self.schedules = await self._schedules.unfinished(commands - 1, after="")
        return 1 + len(self.schedules)

    async def _read_usage(self, commands: int, now_ms: int) -> int:
        owners, month = self._owners[:commands], day_of(now_ms).isoformat()[:7]
        replies = await self._ask([("HGETALL", keys.usage_month(owner, month)) for owner in owners])
        sums: dict[tuple[str, str], Figures] = {}
        days = DaySums(day_of(now_ms))
        for owner, reply in zip(owners, replies, strict=True):
            for name, raw in pairs(reply):
                day, _, model = name.decode().partition(" ")
                figures = unpack(raw)
                sums[owner, model] = sums.get((owner, model), Figures()).plus(figures)
                days.add(int(day), owner, model, figures.input + figures.output)
        self.usage_days = days.columns()
        rows = [(owner, model, figures) for (owner, model), figures in sums.items()]
        rows.sort(key=lambda row: row[2].input + row[2].output, reverse=True)
        self.usage = rows[:USAGE_ROWS_MAX]
        return len(owners)

    async def _read_dead_letters(self, commands: int, now_ms: int) -> int:
        """Read the index, and those records that were not read before: a record does not change."""
        del now_ms
        self.dead_total, found = await self._ask(
            [("ZCARD", keys.HOOKS_DEAD), index_command(DEAD_SHOWN)]
        )
        dead = _scored(found)
        unknown = [each for each in dead if each not in self._dead][: commands - 2]
        replies = await self._ask([record_command(name) for name, _ in unknown])
        for (name, at_ms), reply in zip(unknown, replies, strict=True):
            self._dead[name, at_ms] = letter_of(name, at_ms, reply)
        self._dead = {each: self._dead[each] for each in dead if each in self._dead}
        return 2 + len(unknown)

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The newest webhooks that were given up, as far as they are read."""
        return [letter for letter in self._dead.values() if letter is not None]

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        replies = await self._pipeline.run(commands) if commands else []
        raise_errors(replies)
        return replies


def _scored(reply: Any) -> list[tuple[str, int]]:
    if reply and isinstance(reply[0], tuple | list):
        return [(name.decode(), int(float(score))) for name, score in reply]
    flat = zip(reply[::2], reply[1::2], strict=True)
    return [(name.decode(), int(float(score))) for name, score in flat]
