"""A walk through the objects below a path, some of them in each round.

A store may hold millions of objects, and a listing of all of them may take longer than a round. So
the walk keeps its listing open between two rounds. It does not continue behind a name instead,
because a directory has no order.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator

from shared.files.objects import ObjectInfo, ObjectStore

PART_S = 20.0  # of one round, with the work of the caller on the objects


class Walk:
    """The walk of one process through the objects below a path, again and again."""

    def __init__(self, objects: ObjectStore, prefix: str) -> None:
        self._objects = objects
        self._prefix = prefix
        self._listing: AsyncIterator[ObjectInfo] | None = None

    async def part(self) -> AsyncGenerator[ObjectInfo, None]:
        """Yield the next objects for `PART_S`, but at least one, or up to the end of the walk.

        The next call continues behind the last object, also if the caller left. After the end, or
        if the listing failed or was cancelled, the next call begins anew.

        Raises:
            FilesUnavailable: the store did not answer, or refused.
        """
        until_s = time.monotonic() + PART_S
        while True:
            listing = self._listing or aiter(self._objects.list(self._prefix))
            self._listing = None
            info = await anext(listing, None)
            if info is None:
                return
            self._listing = listing
            yield info
            if time.monotonic() >= until_s:
                return
