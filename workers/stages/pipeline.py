"""Passes the events of one attempt through the stages of its model, in the order of the list.

    model ──▶ stage ──▶ stage ──▶ outbox

Before the model is asked, each stage may work (`prepare`). Events of a stage pass through the
stages behind it. A stage that returns `Finish` ends the answer: the stages behind it are flushed,
and the model is stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from shared.log.events import AnyEvent, decode_known
from shared.log.records import Entry
from shared.log.request import Request
from workers.backends.contract import BackendItem, Finish
from workers.stages.contract import AnswerStage, Items

Reading = AsyncGenerator[Items, None]


class Pipeline:
    """The stages of one attempt.

    Args:
        log: the entries of the earlier attempts.
    """

    def __init__(self, stages: Sequence[AnswerStage], log: Sequence[Entry]) -> None:
        self._stages = stages
        self._is_over = False
        self._is_apart = any(stage.is_apart for stage in stages)
        self._recorders = [stage for stage in stages if stage.records]
        limits = [stage.ends_in_s for stage in stages if stage.ends_in_s is not None]
        self._until_s = min(limits) + _now_s() if limits else None
        self._fold(log)

    def _fold(self, log: Sequence[Entry]) -> None:
        for _, raw in log:
            if (event := decode_known(raw)) is not None:
                for stage in self._stages:
                    stage.fold(event)

    async def read(self, request: Request, ask: Callable[[Request], Reading]) -> Reading:
        """Yield what belongs to the log.

        Args:
            ask: asks the model.

        Raises:
            BackendError: the attempt has failed. Items yielded before remain valid.
        """
        for at, stage in enumerate(self._stages):
            if (steps := stage.prepare(request)) is None:
                continue
            async with aclosing(steps):
                async for step in steps:
                    if isinstance(step, Request):
                        request = step
                        continue
                    yield await self._passed(step, 0 if stage.records else at + 1)
                    if self._is_over:
                        return
        async with aclosing(ask(request)) as stream:
            if self._until_s is None and not self._is_apart:
                if len(self._stages) == 1 and not self._recorders:
                    feed = self._stages[0].feed  # the usual case, without a call for the list
                else:
                    feed = self._feed
                async for items in stream:
                    if items and type(items[-1]) is not Finish:
                        left = feed(items)
                        if left and type(left[-1]) is Finish:
                            self._is_over = True
                    else:
                        left = self._feed(items)
                    yield left
                    if self._is_over:
                        return
                return
            while not self._is_over and (following := await self._next(stream)) is not None:
                yield await self._passed(following)

    async def _next(self, stream: Reading) -> Items | None:
        """Return the next items of the model, or its end when the time of the answer is over."""
        try:
            async with asyncio.timeout_at(self._until_s):
                return await anext(stream, None)
        except TimeoutError:
            if self._until_s is None or _now_s() < self._until_s:
                raise
            return [Finish("length", is_cut=True)]

    async def _passed(self, items: Items, first: int = 0) -> Items:
        return self._feed(items, first)

    def feed(self, items: Items) -> Items:
        """Return what leaves the stages of items that come beside `read`."""
        return self._feed(items)

    def _feed(self, items: Items, first: int = 0) -> Items:
        """Return what leaves the stages, beginning at the stage `first`. Nothing after `Finish`."""
        if self._is_over or not items:
            return []
        left, place = items, first
        for stage in self._stages[first:] if first else self._stages:
            if type(left[-1]) is Finish:
                break
            left = stage.feed(left)
            place += 1
            if not left:
                return left
        if type(left[-1]) is Finish:
            left = self._end(left[:-1], left[-1], place)
        for recorder in self._recorders:
            recorder.record(left)
        return left

    def _end(self, left: Items, finish: BackendItem, first: int) -> Items:
        """Return the last items, which leave the stages from `first` on and end the answer."""
        self._is_over = True
        for stage in self._stages[first:]:
            left = stage.feed(left) if left else []
            if not (left and isinstance(left[-1], Finish)):
                left = [*left, *stage.flush()]
            if left and isinstance(left[-1], Finish):  # this stage ends the answer
                *left, finish = left
        return [*left, finish]

    async def finished(self) -> None:
        """Let stages work after the log has accepted the end of a completed answer."""
        for recorder in self._recorders:
            await recorder.finished()

    def flush(self) -> list[AnyEvent]:
        """Return what is held back, because the answer ends without a `Finish` of the model."""
        return [item for item in self._feed([Finish("stop")]) if not isinstance(item, Finish)]


def _now_s() -> float:
    return asyncio.get_running_loop().time()
