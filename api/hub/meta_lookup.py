"""One look at meta for all readers of a generation who come within a moment.

When a node dies, its readers come to the others in one burst, and each begins with a look at the
same hash: a thousand questions with one answer. Who finds a look under way waits for its answer,
and where several did, the answer also serves whoever comes within `KEEP_S`. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shared.log.records import Meta

KEEP_S = 0.05  # below any client's pause before it comes again

Read = Callable[[str], Awaitable[Meta | None]]


class _Abandoned(Exception):
    """Who looked for all has gone: somebody else has to."""


class MetaLookup:
    """The looks of one node.

    Args:
        read: asks Redis; may raise, and then raises for all who wait for it.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._under_way: dict[str, asyncio.Future[Meta | None]] = {}
        self._followers: dict[str, int] = {}
        self._kept: dict[str, Meta | None] = {}

    async def meta(self, generation_id: str) -> Meta | None:
        """Return meta as it is, or was at most `KEEP_S` ago."""
        while True:
            if generation_id in self._kept:
                return self._kept[generation_id]
            look = self._under_way.get(generation_id)
            if look is None:
                return await self._look(generation_id)
            self._followers[generation_id] += 1
            try:
                return await asyncio.shield(look)
            except _Abandoned:
                continue

    def forget(self, generation_id: str) -> None:
        """What was found is known to be out of date."""
        self._kept.pop(generation_id, None)

    async def _look(self, generation_id: str) -> Meta | None:
        look = asyncio.get_running_loop().create_future()
        self._under_way[generation_id], self._followers[generation_id] = look, 0
        try:
            meta = await self._read(generation_id)
        except BaseException as exc:
            look.set_exception(exc if isinstance(exc, Exception) else _Abandoned())
            look.exception()  # seen, also where nobody waits
            raise
        else:
            look.set_result(meta)
            return meta
        finally:
            del self._under_way[generation_id]
            if self._followers.pop(generation_id) and not look.exception():
                self._keep(generation_id, look.result())

    def _keep(self, generation_id: str, meta: Meta | None) -> None:
        self._kept[generation_id] = meta
        asyncio.get_running_loop().call_later(KEEP_S, self.forget, generation_id)
