"""Carries what all running generations have to write to Redis, together.

One pipeline at a time for the whole worker, and one in `GATHER_S` unless something is urgent: what
arrives meanwhile leaves with the next, so batches grow with the load, while a lone token and the
first of any answer leave at once. No generation is appended to more often than once in `PACE_S`: of
a stream that is faster than that several tokens leave as one, and nobody sees it. While Redis is
away the same calls are made again, with growing pauses: every one may be repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

from shared.errors import Unavailable
from shared.log.records import Append, Moved, Writing
from shared.log.store import Store
from workers.outbox import Outbox, Restore

GATHER_S = 0.004
PACE_S = 0.01
PAUSE_MIN_S = 0.02
PAUSE_MAX_S = 0.5


class Writer(Protocol):
    """Who has an outbox, and wants to know when something of it was answered."""

    @property
    def outbox(self) -> Outbox: ...

    def on_answer(self) -> None: ...


class Appender:
    """The one way from a worker to the logs."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.store = store
        self.clock = clock
        self.last_ok_s = clock()
        self.entries = 0  # accepted, for the metrics
        self.calls = 0
        self._ready: dict[int, Writer] = {}  # by identity, in order of arrival
        self._hurried: set[int] = set()  # those of them that no pace holds up
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._sent_s = clock() - GATHER_S

    def offer(self, writer: Writer, *, is_urgent: bool = False) -> None:
        """Say that `writer` may have something to send; urgent: somebody waits for just that."""
        self._ready[id(writer)] = writer
        self._wake.set()
        if is_urgent:
            self._hurried.add(id(writer))
            self._urgent.set()

    async def run(self) -> None:
        """Send until cancelled."""
        pause_s = PAUSE_MIN_S
        while True:
            await self._wake.wait()
            await self._gather()
            self._wake.clear()
            self._urgent.clear()
            steps = self._collect()
            self._sent_s = self.clock()
            if not steps:
                continue
            if await self._exchange(steps):
                pause_s = PAUSE_MIN_S
            else:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
                pause_s = min(pause_s * 2, PAUSE_MAX_S)

    async def _gather(self) -> None:
        """Let more come together, if the last pipeline left only just now."""
        wait_s = self._sent_s + GATHER_S - self.clock()
        if wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    await self._urgent.wait()
            except TimeoutError:
                pass

    def _collect(self) -> list[tuple[Writer, Append | Restore]]:
        now_s = self.clock()
        ready, self._ready = self._ready, {}
        hurried, self._hurried = self._hurried, set()
        steps = []
        for key, writer in ready.items():
            if now_s - writer.outbox.taken_s < PACE_S and key not in hurried:
                self._ready[key] = writer
                self._wake.set()
                continue
            step = writer.outbox.take(now_s)
            if step is not None:
                steps.append((writer, step))
        return steps

    async def _exchange(self, steps: list[tuple[Writer, Append | Restore]]) -> bool:
        """Make the calls; returns whether Redis took them all."""
        appends = [(writer, step) for writer, step in steps if isinstance(step, Append)]
        is_fine = True
        if appends:
            outcomes = await self._append([step for _, step in appends])
            for (writer, step), outcome in zip(appends, outcomes, strict=True):
                self.entries += len(step.entries)
                is_fine &= self._settle(writer, outcome)
        restores = [(writer, step) for writer, step in steps if isinstance(step, Restore)]
        for writer, restore in restores:
            is_fine &= self._settle(writer, await self._restore(writer.outbox, restore))
        return is_fine

    async def _append(self, batches: list[Append]) -> list[Writing | Unavailable]:
        self.calls += 1
        try:
            return await self.store.append_many(batches)
        except Unavailable as exc:
            return [exc] * len(batches)

    async def _restore(self, outbox: Outbox, step: Restore) -> Writing | Moved | Unavailable:
        try:
            return await self.store.restore(
                outbox.generation_id,
                outbox.token,
                outbox.attempt,
                step.top,
                step.fields,
                step.entries,
            )
        except Unavailable as exc:
            return exc

    def _settle(self, writer: Writer, outcome: Writing | Moved | Unavailable) -> bool:
        now_s = self.clock()
        writer.outbox.answer(outcome, now_s)
        writer.on_answer()
        if not writer.outbox.is_settled:
            self.offer(writer)
            if writer.outbox.is_behind:
                self._hurried.add(id(writer))
        if isinstance(outcome, Unavailable):
            return False
        self.last_ok_s = now_s
        return True
