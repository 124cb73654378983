"""The report of a worker: its presence, its figures, and its runs while a console is open.

With each report the worker reads its orders. An order to drain does what SIGTERM does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import msgspec

from shared.console.board import Orders, report_worker
from shared.console.reports import LiveRun
from shared.queue.lanes import batch_slots_max
from shared.queue.presence import MODELS_MAX, Presence
from workers.parts import WorkerParts
from workers.run import Run

log = logging.getLogger(__name__)


def presence_of(parts: WorkerParts, running: int, now_ms: int, *, is_draining: bool) -> Presence:
    """Return the presence of a worker with its counters.

    Args:
        running: the number of its runs.
        now_ms: Redis's clock.
    """
    counters = parts.counters | {
        "entries": float(parts.appender.entries),
        "append_calls": float(parts.appender.calls),
        "moments": float(parts.timeline.written),
        "moments_lost": float(parts.timeline.lost),
    }
    return Presence(
        worker=parts.worker,
        at_ms=now_ms,
        slots=parts.settings.worker_slots,
        batch_slots=batch_slots_max(parts.settings.worker_slots),
        models=sorted(parts.models)[:MODELS_MAX],
        running=running,
        draining=is_draining,
        counters=counters,
    )


class WorkerReport:
    """Writes the reports of one worker.

    Args:
        runs: the running entries, by generation id.
        drain: starts no new entry, and lets the worker end.
    """

    def __init__(
        self, parts: WorkerParts, runs: Mapping[str, Run], drain: Callable[[], None]
    ) -> None:
        self._parts = parts
        self._runs = runs
        self._drain = drain
        self._is_watched = False

    async def write(self, presence: Presence) -> None:
        """Write the report, in one round trip; in two if a console has just been opened.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        presence = self._with_figures(presence)
        was_watched = self._is_watched
        orders = await self._send(presence)
        if orders.is_watched and not was_watched:
            await self._send(presence)
        if orders.drained_by and not presence.draining:
            log.info("draining", extra={"running": len(self._runs), "by": orders.drained_by})
            self._drain()

    async def _send(self, presence: Presence) -> Orders:
        runs = self._live() if self._is_watched else None
        orders = await report_worker(self._parts.store.redis, presence, runs)
        self._is_watched = orders.is_watched
        return orders

    def _with_figures(self, presence: Presence) -> Presence:
        figures, now_s = self._parts.figures, self._parts.clock()
        silence_s = 0.0
        for run in self._runs.values():
            if run.is_holding:
                silence_s = max(silence_s, run.timeline.silence_s(now_s))
                if (gap_s := run.timeline.take_gap()) is not None:
                    figures.note_gap(gap_s)
        return msgspec.structs.replace(
            presence,
            counters=presence.counters | {"tokens": float(figures.tokens)},
            first_tokens=dict(figures.first_tokens),
            gaps=dict(figures.gaps),
            silence_s=round(silence_s, 3),
            waits={name: dict(counts) for name, counts in figures.waits.items()},
            runs={name: dict(counts) for name, counts in figures.runs.items()},
            happened=figures.happenings.newest(),
            happened_count=figures.happenings.count,
        )

    def _live(self) -> list[LiveRun]:
        now_s = self._parts.clock()
        return [_live_run(run, now_s) for run in self._runs.values() if run.begun is not None]


def _live_run(run: Run, now_s: float) -> LiveRun:
    assert run.begun is not None
    meta, output_s = run.begun.meta, run.timeline.output_s
    return LiveRun(
        id=run.id,
        owner=meta.owner,
        model=run.ticket.model,
        backend=run.timeline.backend or run.model.kind.name,
        priority=run.ticket.priority,
        created_at_ms=meta.created_at_ms,
        attempt=run.begun.start[0].attempt,
        tokens=run.timeline.pieces,
        idle_ms=-1 if output_s is None else round((now_s - output_s) * 1000),
    )
