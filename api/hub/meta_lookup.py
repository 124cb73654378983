"""Reads the meta of a generation once for all readers that ask at the same moment.

When a node dies, its readers reconnect to the other nodes in one burst, and each reader first needs
the same meta: a thousand reads of one hash. Here the first caller reads, and callers that come
during the read wait for its answer. If there were any, the answer is kept for `ANSWER_KEEP_S` and
also serves the callers of that time. Invariant: a failed read is not kept. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shared.log.records import Meta

ANSWER_KEEP_S = 0.05  # shorter than any client's pause before a reconnect

ReadMeta = Callable[[str], Awaitable[Meta | None]]


class _ReadCancelled(Exception):
    """The caller that was reading was cancelled: another caller has to read."""


class MetaLookup:
    """The shared reads of one node.

    Args:
        read: reads meta from Redis. If it raises, all callers that wait for it get the exception.
    """

    def __init__(self, read: ReadMeta) -> None:
        self._read = read
        self._reads: dict[str, asyncio.Future[Meta | None]] = {}
        self._waiter_counts: dict[str, int] = {}
        self._answers: dict[str, Meta | None] = {}

    async def meta(self, generation_id: str) -> Meta | None:
        """Return meta as it is now, or was at most `ANSWER_KEEP_S` ago; None: there is none.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        while True:
            if generation_id in self._answers:
                return self._answers[generation_id]
            read = self._reads.get(generation_id)
            if read is None:
                return await self._read_for_all(generation_id)
            self._waiter_counts[generation_id] += 1
            try:
                return await asyncio.shield(read)
            except _ReadCancelled:
                continue

    def forget(self, generation_id: str) -> None:
        """Drop the kept answer, which is outdated."""
        self._answers.pop(generation_id, None)

    async def _read_for_all(self, generation_id: str) -> Meta | None:
        answer = asyncio.get_running_loop().create_future()
        self._reads[generation_id], self._waiter_counts[generation_id] = answer, 0
        try:
            meta = await self._read(generation_id)
        except BaseException as exc:
            answer.set_exception(exc if isinstance(exc, Exception) else _ReadCancelled())
            answer.exception()  # marks it as retrieved, so that asyncio logs nothing
            raise
        else:
            answer.set_result(meta)
            return meta
        finally:
            del self._reads[generation_id]
            if self._waiter_counts.pop(generation_id) and not answer.exception():
                self._keep(generation_id, answer.result())

    def _keep(self, generation_id: str, meta: Meta | None) -> None:
        self._answers[generation_id] = meta
        asyncio.get_running_loop().call_later(ANSWER_KEEP_S, self.forget, generation_id)
