"""Lets the generations of lines expire soon after their results are committed.

The output has the answer, so Redis need not keep it for `TAILRACE_RETENTION_S`. But the usage and
the audit record of a line are made of its generation, and while the file store is away this may
take longer than a line is kept. So a generation first leaves the queue's indexes, which hold each
ended generation until it is settled (shared/usage/settlement.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

from shared.config.settings import Settings
from shared.log.store import Store
from shared.queue.partitions import partitions_of
from shared.redis import keys
from shared.redis.client import translated
from shared.redis.shards import serves

LINE_KEPT_S = 60.0  # until a settled line's generation expires
LINES_PER_LOOK = 2_000
LINES_MAX = 100_000  # beyond that the oldest ones stay for `TAILRACE_RETENTION_S`
_WAITING = [partial(keys.waiting, priority) for priority in keys.PRIORITIES]


class DoneLines:
    """The generations of committed lines of this process that are not settled yet, by age.

    If the process dies, they stay for `TAILRACE_RETENTION_S`.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._kept_ms = round(1000 * min(LINE_KEPT_S, settings.retention_s))
        self._partitions = partitions_of(settings)
        self._ids: deque[str] = deque(maxlen=LINES_MAX)

    def add(self, ids: Sequence[str]) -> None:
        """Add the generations of lines whose results have just been committed."""
        self._ids.extend(ids)

    async def let_expire(self) -> None:
        """Set the expiry of settled generations. Call it about once a second.

        Raises:
            Unavailable: Redis did not answer in time; the next call repeats this.
        """
        some = list(islice(self._ids, LINES_PER_LOOK))
        if settled := await self._settled(some):
            await self._store.keep_for(settled, self._kept_ms)
        for _ in some:
            self._ids.popleft()
        done = set(settled)
        self._ids.extend(each for each in some if each not in done)

    async def _settled(self, ids: Sequence[str]) -> list[str]:
        """Return the generations that no index of the queue holds.

        At its end a generation moves to `unsettled`, so that index is read last.
        """
        partitions, redis = self._partitions, self._store.redis
        served = [
            each
            for each in ids
            if serves(redis, keys.unsettled(partitions.of(each)), keys.meta(each))
        ]
        left = await self._outside(served, [keys.running, *_WAITING])
        return await self._outside(left, [keys.unsettled])

    async def _outside(
        self, ids: Sequence[str], indexes: Sequence[Callable[[str], str]]
    ) -> list[str]:
        """Return those of `ids` that none of the indexes holds."""
        with translated():
            pipeline = self._store.redis.pipeline(transaction=False)
            for each in ids:
                for index in indexes:
                    pipeline.zscore(index(self._partitions.of(each)), each)
            scores = iter(await pipeline.execute() if ids else [])
        return [each for each in ids if [next(scores) for _ in indexes] == [None] * len(indexes)]
