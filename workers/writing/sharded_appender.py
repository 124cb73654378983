"""An appender for each server of a cluster: a server that does not answer delays only its own.

An `Appender` has one pipeline under way. If that pipeline went to all servers of a cluster, one
frozen server would hold up the tokens of all generations. So each server has an appender of its
own, and a writer is offered to the one of the server that has its generation now. A writer whose
call is under way at another server is passed over there (`Outbox.take`), and is offered again when
that call has its outcome.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable

from shared.log.store import Store
from shared.redis import keys
from shared.redis.cluster.pipeline import ClusterPipeline
from shared.redis.pipeline import Pipeline
from workers.writing.appender import Appender, Writer

PlaceOf = Callable[[str], Hashable]


class ShardedAppender:
    """The interface of `Appender` (workers/writing/appender.py) over several of them.

    Args:
        place_of: returns the server of a generation.
        clock: seconds, monotonic.
    """

    def __init__(self, store: Store, clock: Callable[[], float], place_of: PlaceOf) -> None:
        self._store = store
        self._clock = clock
        self.place_of = place_of
        self._appenders: dict[Hashable, Appender] = {}
        self._group: asyncio.TaskGroup | None = None

    @property
    def entries(self) -> int:
        return sum(each.entries for each in self._appenders.values())

    @property
    def calls(self) -> int:
        return sum(each.calls for each in self._appenders.values())

    def offer(self, writer: Writer, *, is_urgent: bool = False) -> None:
        """Note that `writer` may have something to send, as `Appender.offer`."""
        self._of(writer.outbox.generation_id).offer(writer, is_urgent=is_urgent)

    def last_ok_of(self, generation_id: str) -> float:
        """Return when the server of a generation last answered a call, s."""
        return self._of(generation_id).last_ok_s

    def note_ok(self, generation_id: str, at_s: float) -> None:
        """Record that the server of a generation has answered a call that was sent at `at_s`."""
        self._of(generation_id).note_ok(generation_id, at_s)

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for appender in self._appenders.values():
                self._group.create_task(appender.run())
            await asyncio.Event().wait()

    def _of(self, generation_id: str) -> Appender:
        place = self.place_of(generation_id)
        appender = self._appenders.get(place)
        if appender is None:
            # A refused writer is offered here again, because its generation may have moved.
            appender = Appender(self._store, self._clock, offer=self.offer)
            self._appenders[place] = appender
            if self._group is not None:
                self._group.create_task(appender.run())
        return appender


def open_appender(store: Store, pipeline: Pipeline) -> Appender | ShardedAppender:
    """Return the appender of a worker whose calls go through `pipeline`."""
    if isinstance(pipeline, ClusterPipeline):

        def place_of(generation_id: str) -> Hashable:
            return pipeline.place_of(keys.meta(generation_id))

        return ShardedAppender(store, time.monotonic, place_of)
    return Appender(store, time.monotonic)
