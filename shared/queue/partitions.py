"""The partitions of the queue: each holds lanes and sets of its own, under a hash tag of its own.

The id of a generation decides its partition, so every process finds it without asking. With one
partition the tag is `{q}`, as in versions without partitions; with more the tags are `{q0}`, `{q1}`
and so on. A process with another number would read and write other keys: its prompts would wait for
ever. So the number stands in Redis, and a role with another number does not start.

On a cluster the tags are `{q0.25}`, `{q1.53}` and so on. The number after the point is chosen so
that the slots of the tags lie at even distances. Then masters with equal ranges of slots have
equal numbers of partitions, or one more: of `{q0}` to `{q7}`, three masters have 2, 2 and 4.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import cache
from zlib import crc32

from shared.config.settings import Settings
from shared.errors import ConfigurationError, Unavailable
from shared.redis import keys
from shared.redis.client import Client, translated
from shared.redis.cluster.slots import SLOTS, key_slot
from shared.redis.shards import is_partly_away

EVEN_SHARE = 32  # the slot of an even tag is at most 1/32 of a part away from its middle
RULES = 'docs/operations.md, "Partitions of the queue", says how to change the number'


class Partitions:
    """The partitions of one deployment.

    Args:
        is_even: spread the slots of the tags evenly, for a cluster.

    Attributes:
        tags: the hash tag of each, without braces.
    """

    def __init__(self, count: int = 1, *, is_even: bool = False) -> None:
        assert count > 0
        self.tags: tuple[str, ...] = (keys.QUEUE,)
        if count > 1:
            tag_of = _even_tag if is_even else _plain_tag
            self.tags = tuple(tag_of(n, count) for n in range(count))

    def of(self, generation_id: str) -> str:
        """Return the tag of a generation's partition. Every version must return the same."""
        checksum = crc32(generation_id.encode("utf-8", "surrogatepass"))
        return self.tags[checksum % len(self.tags)]

    def grouped(self, ids: Iterable[str]) -> dict[str, list[str]]:
        """Return the ids by the tag of their partition."""
        groups: dict[str, list[str]] = {}
        for generation_id in ids:
            groups.setdefault(self.of(generation_id), []).append(generation_id)
        return groups


def partitions_of(settings: Settings) -> Partitions:
    """Return the partitions that the settings name."""
    return _partitions(settings.partition_count, settings.is_cluster)


@cache
def _partitions(count: int, is_even: bool) -> Partitions:
    return Partitions(count, is_even=is_even)


def _plain_tag(n: int, count: int) -> str:
    return f"q{n}"


def _even_tag(n: int, count: int) -> str:
    """Return a tag whose slot lies near the middle of part `n` of `count` equal parts.

    Every version must return the same.
    """
    middle = (2 * n + 1) * SLOTS // (2 * count)
    tags = (f"q{n}.{number}" for number in itertools.count())
    away_max = SLOTS // (EVEN_SHARE * count)
    return next(tag for tag in tags if abs(key_slot(tag.encode()) - middle) <= away_max)


async def agree(redis: Client, settings: Settings) -> None:
    """Check that the number of partitions is that of this Redis, and record the first one.

    Of a cluster, the shard of the record may be away while others answer. Then nothing is checked:
    a role must be able to start. The janitor compares the numbers again and again.

    Raises:
        ConfigurationError: as `check`.
        Unavailable: Redis did not answer in time.
    """
    try:
        await _agree(redis, settings)
    except Unavailable:
        if not is_partly_away(redis):
            raise


async def _agree(redis: Client, settings: Settings) -> None:
    await check(redis, settings)
    if await record(redis, settings.partition_count) != settings.partition_count:
        await check(redis, settings)  # another role was a moment earlier


async def check(redis: Client, settings: Settings) -> None:
    """As `agree`, without recording the number.

    Raises:
        ConfigurationError: other roles use another number, or generations of a version without a
            record still wait or run.
        Unavailable: Redis did not answer in time.
    """
    count, known = settings.partition_count, await _recorded(redis)
    if known is None and count > 1 and (left := await _unpartitioned(redis)):
        raise ConfigurationError(
            f"TAILRACE_QUEUE_PARTITIONS is {count}, and the queue of one partition still holds "
            f"{left} generations: set 1 until they have ended; {RULES}"
        )
    if known not in (None, count):
        raise ConfigurationError(
            f"TAILRACE_QUEUE_PARTITIONS is {count}, and the other roles on this Redis use {known}: "
            f"set the same number for all roles; {RULES}"
        )


async def record(redis: Client, count: int) -> int:
    """Record the number unless one is recorded. Return the recorded number.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    with translated():
        await redis.set(keys.PARTITIONS, str(count), nx=True)
    known = await _recorded(redis)
    return count if known is None else known


async def _recorded(redis: Client) -> int | None:
    with translated():
        raw = await redis.get(keys.PARTITIONS)
    return int(raw) if raw is not None and raw.isdigit() else None


async def _unpartitioned(redis: Client) -> int:
    """Return the number of generations in the queue of one partition."""
    names = [keys.running(), keys.later(), *map(keys.waiting, keys.PRIORITIES)]
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for name in names:
            pipeline.zcard(name)
        return sum(await pipeline.execute())
