"""A pipeline with a stage of a third party: all its stages run in a thread of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing

from shared.log.events import AnyEvent
from shared.log.records import Entry
from shared.log.request import Request
from workers.stages.contract import AnswerStage, Items
from workers.stages.pipeline import Pipeline, Reading
from workers.stages.plugin.thread import StageThread


class PipelineApart(Pipeline):
    """See `Pipeline`. `feed` and `flush` are of the worker's loop and must not wait for the thread.

    So what the seam holds back for too long leaves with the next events of the model, and an answer
    that ends without a `Finish` of the model loses what its stages hold back.
    """

    def __init__(self, stages: Sequence[AnswerStage], log: Sequence[Entry]) -> None:
        super().__init__(stages, [])
        self._log = log
        self._late: Items = []

    async def read(self, request: Request, ask: Callable[[Request], Reading]) -> Reading:
        """See `Pipeline.read`."""
        self._thread = StageThread("stages")
        try:
            await self._thread.call(lambda: self._fold(self._log))
            async with aclosing(super().read(request, ask)) as staged:
                async for items in staged:
                    yield items
        finally:
            self._thread.close()

    async def _passed(self, items: Items, first: int = 0) -> Items:
        items, self._late = [*self._late, *items], []
        if not items:
            return []
        return await self._thread.call(lambda: self._feed(items, first))

    def feed(self, items: Items) -> Items:
        """See `Pipeline.feed`."""
        self._late += items
        return []

    def flush(self) -> list[AnyEvent]:
        """See `Pipeline.flush`."""
        return []
