"""Renews the leases of all running generations of a worker, each third of a lease.

A renewal first runs the script on each `{id}`, and then resets the idle time of the queue entries
of the generations that are still held. The same round writes the presence of the worker. Redis
decides whether a lease is still held; this module passes on the answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from shared.errors import Unavailable
from shared.log.records import Ok
from shared.queue.presence import Presence, announce
from workers.parts import WorkerParts
from workers.run import Run

log = logging.getLogger(__name__)


class Renewal:
    """The renewals of one worker.

    Args:
        runs: the running entries, by generation id.
        presence: returns the report of the worker at a time of Redis's clock, ms.
        on_away: called when Redis did not answer.
    """

    def __init__(
        self,
        parts: WorkerParts,
        runs: Mapping[str, Run],
        presence: Callable[[int], Presence],
        on_away: Callable[[], None],
    ) -> None:
        self.parts = parts
        self.runs = runs
        self._presence = presence
        self._on_away = on_away

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            try:
                await self._renew()
            except Unavailable as exc:
                log.warning("renewal failed", extra={"reason": str(exc)})
                self._on_away()
                self._stop_if_cut_off()
            await asyncio.sleep(self.parts.settings.lease_s / 3)

    async def _renew(self) -> None:
        store, queue, appender = self.parts.store, self.parts.queue, self.parts.appender
        holding = [run for run in self.runs.values() if run.is_holding]
        sent_at_s = time.monotonic()
        outcomes = await store.renew_many(
            [(run.id, run.outbox.token, run.outbox.attempt, _has_grace(run)) for run in holding],
            {run.id: usage for run in holding if (usage := run.usage_if_cancelled())},
        )
        now_s = time.monotonic()
        renewed: dict[str, list[bytes]] = {}
        for run, outcome in zip(holding, outcomes, strict=True):
            run.outbox.apply_renewal(outcome, sent_at_s, now_s)
            run.on_answer()
            appender.offer(run)  # after a loss the appender restores
            if isinstance(outcome, Ok):
                renewed.setdefault(run.delivery.stream, []).append(run.delivery.entry_id)
        if renewed:
            await queue.renew(renewed)
        now_ms = await store.now_ms()
        appender.last_ok_s = max(appender.last_ok_s, sent_at_s)
        await queue.note_running([run.id for run in holding if run.is_holding], now_ms)
        await announce(store.redis, self._presence(now_ms))

    def _stop_if_cut_off(self) -> None:
        """Stop all runs if Redis has been away for longer than `redis_outage_s`."""
        away_s = time.monotonic() - self.parts.appender.last_ok_s
        if away_s > self.parts.settings.redis_outage_s and self.runs:
            log.error("redis away for too long", extra={"away_s": round(away_s, 1)})
            for run in self.runs.values():
                run.stop("outage")


def _has_grace(run: Run) -> bool:
    return run.begun is not None and run.begun.meta.grace_s is not None
