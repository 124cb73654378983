"""Sends the entries of all running generations of one worker to Redis, in shared pipelines.

At most one pipeline is in flight for the whole worker, and pipelines start at least `GATHER_S`
apart unless an entry is urgent. Entries that arrive meanwhile leave with the next pipeline, so
pipelines grow with the load, while a single token, or the first token of an answer, leaves at once.
Each generation is appended to at most once per `PACE_S`: of a faster stream several tokens leave
as one event, which no reader notices. While Redis does not answer, the same calls are repeated
with growing pauses; every call may be repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Hashable
from typing import Protocol

from shared.errors import Unavailable
from shared.log.records import Append, Moved, Writing
from shared.log.store import Store
from workers.writing.outbox import Outbox, RestoreBatch

GATHER_S = 0.004
PACE_S = 0.01
APPEND_RETRY_PAUSE_MIN_S = 0.02
APPEND_RETRY_PAUSE_MAX_S = 0.5
REFUSED_PAUSE_S = 0.1  # before a call goes again that was refused while others were answered


class Writer(Protocol):
    """An object with an outbox; `on_answer` is called after each outcome for that outbox."""

    @property
    def outbox(self) -> Outbox: ...

    def on_answer(self) -> None: ...


class Appender:
    """Appends and restores for all writers of one worker.

    Args:
        clock: seconds, monotonic.
        offer: takes a writer that has to be sent again; None: this appender.

    Attributes:
        last_ok_s: when Redis last answered a call.
        entries: number of entries sent, for the metrics.
        calls: number of append pipelines, for the metrics.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        offer: Callable[[Writer], None] | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.last_ok_s = clock()
        self.entries = 0
        self.calls = 0
        self._offer_again = offer or self.offer
        self._ready: dict[int, Writer] = {}  # by identity, in order of arrival
        self._unpaced: set[int] = set()  # keys of `_ready` that need not wait for `PACE_S`
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._sent_s = clock() - GATHER_S

    def place_of(self, generation_id: str) -> Hashable:
        """Return the server of a generation: here there is one."""
        return None

    def last_ok_of(self, generation_id: str) -> float:
        """Return when the server of a generation last answered a call, s."""
        return self.last_ok_s

    def note_ok(self, generation_id: str, at_s: float) -> None:
        """Record that the server of a generation has answered a call that was sent at `at_s`."""
        self.last_ok_s = max(self.last_ok_s, at_s)

    def offer(self, writer: Writer, *, is_urgent: bool = False) -> None:
        """Note that `writer` may have something to send.

        Args:
            is_urgent: send it without waiting for `GATHER_S` or `PACE_S`, because a reader or the
                run waits for this entry.
        """
        self._ready[id(writer)] = writer
        self._wake.set()
        if is_urgent:
            self._unpaced.add(id(writer))
            self._urgent.set()

    async def run(self) -> None:
        """Send until cancelled."""
        pause_s = APPEND_RETRY_PAUSE_MIN_S
        while True:
            await self._wake.wait()
            await self._gather()
            self._wake.clear()
            self._urgent.clear()
            steps = self._collect()
            self._sent_s = self.clock()
            if not steps:
                continue
            refused = await self._exchange(steps)
            if len(refused) < len(steps):
                pause_s = APPEND_RETRY_PAUSE_MIN_S
                if refused:  # such as a generation whose slot is moving: the others go on
                    asyncio.get_running_loop().call_later(REFUSED_PAUSE_S, self._repeat, refused)
            else:
                self._repeat(refused)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
                pause_s = min(pause_s * 2, APPEND_RETRY_PAUSE_MAX_S)

    def _repeat(self, refused: list[Writer]) -> None:
        for writer in refused:
            if not writer.outbox.is_settled:
                self._offer_again(writer)
                if writer.outbox.has_backlog:
                    self._unpaced.add(id(writer))

    async def _gather(self) -> None:
        """Wait until `GATHER_S` after the last pipeline, or until an entry is urgent."""
        wait_s = self._sent_s + GATHER_S - self.clock()
        if wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    await self._urgent.wait()
            except TimeoutError:
                pass

    def _collect(self) -> list[tuple[Writer, Append | RestoreBatch]]:
        """Take the next call of each ready writer; keep the writers whose pace is not over."""
        now_s = self.clock()
        ready, self._ready = self._ready, {}
        unpaced, self._unpaced = self._unpaced, set()
        steps = []
        for key, writer in ready.items():
            if now_s - writer.outbox.last_take_s < PACE_S and key not in unpaced:
                self._ready[key] = writer
                self._wake.set()
                continue
            step = writer.outbox.take(now_s)
            if step is not None:
                steps.append((writer, step))
        return steps

    async def _exchange(self, steps: list[tuple[Writer, Append | RestoreBatch]]) -> list[Writer]:
        """Make the calls; return the writers whose call Redis did not answer."""
        appends = [(writer, step) for writer, step in steps if isinstance(step, Append)]
        refused = []
        if appends:
            outcomes = await self._append([step for _, step in appends])
            for (writer, step), outcome in zip(appends, outcomes, strict=True):
                self.entries += len(step.entries)
                if not self._settle(writer, outcome):
                    refused.append(writer)
        restores = [(writer, step) for writer, step in steps if isinstance(step, RestoreBatch)]
        for writer, restore in restores:
            if not self._settle(writer, await self._restore(writer.outbox, restore)):
                refused.append(writer)
        return refused

    async def _append(self, batches: list[Append]) -> list[Writing | Unavailable]:
        self.calls += 1
        try:
            return await self.store.append_many(batches)
        except Unavailable as exc:
            return [exc] * len(batches)

    async def _restore(self, outbox: Outbox, step: RestoreBatch) -> Writing | Moved | Unavailable:
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
        """Pass an outcome to its writer; return whether Redis answered."""
        now_s = self.clock()
        writer.outbox.apply_outcome(outcome, now_s)
        writer.on_answer()
        if isinstance(outcome, Unavailable):
            return False
        if not writer.outbox.is_settled:
            self.offer(writer)
            if writer.outbox.has_backlog:
                self._unpaced.add(id(writer))
        self.last_ok_s = now_s
        return True
