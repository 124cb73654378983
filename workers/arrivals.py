"""Waits for new queue entries in all partitions at once.

A server blocks on the keys of one slot, so each partition needs a blocking read and a connection of
its own. The reads stay open while the worker starts the entries of another one. Invariant: an open
read may return one entry of each of its lanes, so the caller counts these as taken slots
(`reserved`). This module starts nothing, and does not know which entries may start.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import Unavailable
from shared.queue.lanes import Delivery, Queue
from shared.redis import keys
from shared.redis.shards import is_partly_away, serves

CONNECTIONS_MAX = 16  # partitions that one worker waits on; it looks at the others now and then
NO_WAIT_S = 0.002  # a blocking read that returns faster found an entry that was already waiting


def own_partitions(tags: Sequence[str], worker: str) -> list[str]:
    """Return the partitions that this worker waits on: all, or a random part of its own."""
    if len(tags) <= CONNECTIONS_MAX:
        return list(tags)
    return random.Random(worker).sample(list(tags), CONNECTIONS_MAX)


@dataclass(frozen=True, slots=True)
class OpenRead:
    """One blocking read under way."""

    lanes: Sequence[str]
    opened_s: float
    task: asyncio.Task[list[Delivery] | Unavailable]


class Arrivals:
    """The open reads of one worker.

    Args:
        tags: of the partitions to wait on.
        spawn: starts a task that the worker owns.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        queue: Queue,
        tags: Sequence[str],
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue = queue
        self.tags = list(tags)
        self._spawn = spawn
        self._clock = clock
        self._reads: dict[str, OpenRead] = {}
        self._failed_s = -math.inf  # when a read last failed

    @property
    def reserved(self) -> tuple[int, int]:
        """How many entries the open reads may return: in all, and of the batch lane."""
        lanes = [lane for read in self._reads.values() for lane in read.lanes]
        return len(lanes), lanes.count("batch")

    @property
    def covers_all(self) -> bool:
        """Whether an open read waits on each lane of each partition of the queue."""
        streams = len(self.queue.partitions.tags) * len(keys.LANES)
        return self.reserved[0] == streams

    def unread(self) -> list[str]:
        """Return the partitions without an open read. Each call begins with another partition.

        Of a cluster with some shards away, only the partitions on the others.
        """
        self.tags.append(self.tags.pop(0))
        unread = [tag for tag in self.tags if tag not in self._reads]
        if is_partly_away(self.queue.redis):
            return [tag for tag in unread if serves(self.queue.redis, keys.running(tag))]
        return unread

    def open(self, places: Mapping[str, Sequence[str]], wait_ms: int) -> None:
        """Open a read of at most `wait_ms` ms on each place: the tag of a partition, its lanes."""
        for tag, lanes in places.items():
            task = self._spawn(self._read(tag, lanes, wait_ms))
            self._reads[tag] = OpenRead(lanes, self._clock(), task)

    async def next(self) -> tuple[list[Delivery], bool]:
        """Return the entries of the first reads to return, and whether these reads had to wait.

        A read that returned at once found a lane that may hold more entries.

        Raises:
            Unavailable: Redis did not answer. One outage is reported once, not for each read. Of a
                cluster with some shards away, none is reported.
        """
        await asyncio.wait(
            [read.task for read in self._reads.values()], return_when=asyncio.FIRST_COMPLETED
        )
        found, failure, has_waited = list[Delivery](), None, True
        for tag, read in [pair for pair in self._reads.items() if pair[1].task.done()]:
            del self._reads[tag]
            result = read.task.result()
            if isinstance(result, Unavailable):
                if read.opened_s > self._failed_s and not is_partly_away(self.queue.redis):
                    failure = result
                continue
            found += result
            has_waited = has_waited and self._clock() - read.opened_s > NO_WAIT_S
        if failure is not None:
            self._failed_s = self._clock()
            if not found:
                raise failure
        return found, has_waited

    async def close(self) -> list[Delivery]:
        """Return the entries of all open reads, once the last one has returned."""
        reads, self._reads = self._reads, {}
        results = [await read.task for read in reads.values()]
        return [entry for result in results if isinstance(result, list) for entry in result]

    async def _read(
        self, tag: str, lanes: Sequence[str], wait_ms: int
    ) -> list[Delivery] | Unavailable:
        try:
            return await self.queue.wait(lanes, wait_ms, tag=tag)
        except Unavailable as exc:
            return exc
