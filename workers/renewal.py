"""Renews the leases of all running generations of a worker, each third of a lease.

A renewal first runs the script on each `{id}`, and then resets the idle time of the queue entries
of the generations that are still held. Rounds beside it write the presence of the worker and which
generations run here. Redis decides whether a lease is still held; this module passes on the
answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping
from typing import Any

from shared.errors import Unavailable
from shared.log.records import Ok
from shared.queue.presence import Presence
from workers.parts import WorkerParts
from workers.report import WorkerReport
from workers.run import Run

log = logging.getLogger(__name__)


class Renewal:
    """The renewals of one worker.

    Args:
        runs: the running entries, by generation id.
        presence: returns the report of the worker at a time of Redis's clock, ms.
        on_away: called when Redis did not answer.
        drain: called when an operator tells this worker to drain.
    """

    def __init__(
        self,
        parts: WorkerParts,
        runs: Mapping[str, Run],
        presence: Callable[[int], Presence],
        on_away: Callable[[], None],
        *,
        drain: Callable[[], None],
    ) -> None:
        self.parts = parts
        self.runs = runs
        self._presence = presence
        self._on_away = on_away
        self._worker_report = WorkerReport(parts, runs, drain)
        self._under_way: set[Hashable] = set()
        self._held: set[str] = set()  # in the last round
        self._group: asyncio.TaskGroup

    async def run(self) -> None:
        """Renew until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            while True:
                for place, runs in self._held_by_place().items():
                    self._start(("leases", place), self._renew(runs))
                # Of a cluster, the server of the one may be away while that of the other answers.
                self._start("presence", self._report())
                self._start("running", self._note_running())
                await asyncio.sleep(self.parts.settings.lease_s / 3)

    def _held_by_place(self) -> dict[Hashable, list[Run]]:
        """Return the holding runs by the server of their generation.

        Each server has a round of its own: leases must not lapse because another one is silent.
        """
        found: dict[Hashable, list[Run]] = {}
        for run in self.runs.values():
            if run.is_holding:
                found.setdefault(self.parts.appender.place_of(run.id), []).append(run)
        return found

    def _start(self, name: Hashable, work: Coroutine[Any, Any, None]) -> None:
        """Start a round, unless its last one has not returned yet."""
        if name in self._under_way:
            work.close()
            return
        self._under_way.add(name)
        task = self._group.create_task(self._guard(work))
        task.add_done_callback(lambda _: self._under_way.discard(name))

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Unavailable as exc:
            log.warning("renewal failed", extra={"reason": str(exc)})
            self._on_away()

    async def _renew(self, holding: list[Run]) -> None:
        """Renew the leases of runs whose generations are on one server.

        Raises:
            Unavailable: it did not answer in time.
        """
        store, queue, appender = self.parts.store, self.parts.queue, self.parts.appender
        sent_at_s = time.monotonic()
        try:
            outcomes = await store.renew_many(
                [_holder(run) for run in holding],
                {run.id: usage for run in holding if (usage := run.usage_if_cancelled())},
            )
        except Unavailable:
            self._stop_if_cut_off(holding)
            raise
        now_s = time.monotonic()
        renewed: dict[str, list[bytes]] = {}
        for run, outcome in zip(holding, outcomes, strict=True):
            run.outbox.apply_renewal(outcome, sent_at_s, now_s)
            run.on_answer()
            appender.offer(run)  # after a loss the appender restores
            if isinstance(outcome, Ok):
                renewed.setdefault(run.delivery.stream, []).append(run.delivery.entry_id)
        if all(isinstance(outcome, Unavailable) for outcome in outcomes):
            self._stop_if_cut_off(holding)
        else:
            appender.note_ok(holding[0].id, sent_at_s)
        if renewed:
            await queue.renew(renewed)

    async def _report(self) -> None:
        """Write the presence of the worker.

        Raises:
            Unavailable: Redis did not answer in time; of a cluster, the server of the presence.
        """
        await self._worker_report.write(self._presence(await self.parts.store.now_ms()))

    async def _note_running(self) -> None:
        """Write which generations run here.

        Raises:
            Unavailable: Redis did not answer in time; of a cluster, each server of a generation.
        """
        # Only runs of the last round, too: no note may follow the end of an answer that just began.
        holding = [run for run in self.runs.values() if run.is_holding]
        now_ms = await self.parts.store.now_ms()
        held, self._held = self._held, {run.id for run in holding}
        await self.parts.queue.note_running(
            [run.id for run in holding if run.is_holding and run.id in held], now_ms
        )

    def _stop_if_cut_off(self, holding: list[Run]) -> None:
        """Stop these runs if their server has been away for longer than `redis_outage_s`."""
        away_s = time.monotonic() - self.parts.appender.last_ok_of(holding[0].id)
        if away_s > self.parts.settings.redis_outage_s:
            log.error("redis away for too long", extra={"away_s": round(away_s, 1)})
            for run in holding:
                run.stop("outage")


def _holder(run: Run) -> tuple[str, str, int, bool]:
    has_grace = run.begun is not None and run.begun.meta.grace_s is not None
    return run.id, run.outbox.token, run.outbox.attempt, has_grace
