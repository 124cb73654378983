"""The parts of a console's picture as JSON, each encoded once for all pages. Pure.

A part that has not changed is not sent again: `Parts.changed` compares the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Reversible, Sequence
from itertools import islice
from typing import Any

import msgspec

from api.console.background import Background
from api.console.limits import BATCHES_SHOWN, EVENTS_SHOWN
from api.console.rows import RowPage
from api.console.sampler import Sampler
from api.console.trends import Trends
from shared.batches.record import Batch
from shared.console.board import POINT_S
from shared.console.reports import Point
from shared.later.schedules import Schedule
from shared.redis import keys

SERIES = (
    "tokens_per_s", "answers", "first_p50_s", "first_p99_s", "gap_p50_s", "gap_p99_s", "gap_max_s",
    "redis_s", "loop_lag_s", "waiting", "running", "readers",
)  # fmt: skip


def parts_of(sampler: Sampler) -> dict[str, Any]:
    """Return the parts that are the same for every page."""
    background = sampler.background
    return {
        "workers": _workers(sampler),
        "nodes": _nodes(sampler),
        "queue": _queue(sampler),
        "batches": [_batch(each) for each in _shown(background)],
        "schedules": [_schedule(each) for each in background.schedules],
        "usage": [
            {"owner": owner, "model": model, **figures._asdict()}
            for owner, model, figures in background.usage
        ],
        "usage_days": background.usage_days,
        "webhooks": {"total": background.dead_total, "letters": background.dead_letters},
        "models": sampler.trends.rows(),
        "happened": _happened(sampler.trends.points),
        "problem": sampler.problem,
    }


def rows_part(page: RowPage, now_ms: int) -> dict[str, Any]:
    """Return the table of generations."""
    return {
        "now_ms": now_ms,
        "total": page.total,
        "unfinished": page.unfinished,
        "page": page.page,
        "rows": page.rows,
    }


def history_part(points: Sequence[Point], trends: Trends) -> dict[str, Any]:
    """Return points as columns: the charts take them so."""
    columns: dict[str, Any] = {"at_ms": [point.at_ms for point in points], "step_s": POINT_S}
    for name in SERIES:
        columns[name] = [getattr(point, name) for point in points]
    columns["models"] = trends.series(points)
    return columns


def encode_event(name: str, data: Any) -> bytes:
    """Return one server-sent event."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


class Parts:
    """What one page has been sent."""

    def __init__(self) -> None:
        self._sent: dict[str, bytes] = {}
        self._at_ms = 0  # of the newest point

    def changed(self, encoded: Mapping[str, bytes]) -> Iterator[bytes]:
        """Yield the events that differ from those that this page was sent before."""
        for name, event in encoded.items():
            if self._sent.get(name) != event:
                self._sent[name] = event
                yield event

    def new_points(self, trends: Trends) -> bytes:
        """Return the event with the points that this page lacks; empty: it lacks none."""
        if trends.at_ms <= self._at_ms:
            return b""
        lacking = [point for point in trends.points if point.at_ms > self._at_ms]
        self._at_ms = lacking[-1].at_ms
        return encode_event("history", history_part(lacking, trends))


def _workers(sampler: Sampler) -> list[dict[str, Any]]:
    return [
        {
            "id": each.worker,
            "slots": each.slots,
            "batch_slots": each.batch_slots,
            "models": each.models,
            "running": each.running,
            "draining": each.draining,
            "seen_s": round(age_ms / 1000, 1),
            "tokens_per_s": sampler.rates.get(each.worker, 0.0),
            "counters": each.counters,
        }
        for each, age_ms in sorted(sampler.workers, key=lambda pair: pair[0].worker)
    ]


def _nodes(sampler: Sampler) -> list[dict[str, Any]]:
    return [
        {
            "id": node.node,
            "readers": node.readers,
            "draining": node.is_draining,
            "started_at": node.started_at,
            "redis_s": round(node.redis_s, 5),
            "loop_lag_s": round(node.loop_lag_s, 4),
            "counters": node.counters,
        }
        for node in sorted(sampler.nodes, key=lambda each: each.node)
    ]


def _queue(sampler: Sampler) -> dict[str, Any]:
    states = list(sampler.partitions.values())
    partitions = [
        {
            "partition": state.tag,
            "running": state.running,
            "later": state.later,
            **{name: state.waiting[name] for name in keys.PRIORITIES},
            **{f"{name}_oldest_s": _rounded(state.oldest_s(name)) for name in keys.PRIORITIES},
        }
        for state in states
    ]
    names = (*keys.PRIORITIES, "running", "later")
    return {
        "partitions": partitions,
        "totals": {name: sum(each[name] for each in partitions) for name in names},
    }


def _shown(background: Background) -> list[Batch]:
    """Return the newest batches, those that run or have dead letters before the others."""
    batches = sorted(
        background.batches.values(),
        key=lambda each: (each.is_final and not each.failed, -each.created_at_ms),
    )
    return batches[:BATCHES_SHOWN]


def _batch(batch: Batch) -> dict[str, Any]:
    return {
        "id": batch.id,
        "owner": batch.owner,
        "status": batch.status,
        "model": batch.model or None,
        "total": batch.total,
        "completed": batch.completed,
        "failed": batch.failed,
        "created_at_ms": batch.created_at_ms,
        "expires_at_ms": batch.expires_at_ms,
        "can_redrive": batch.is_final and batch.failed > 0,
    }


def _schedule(schedule: Schedule) -> dict[str, Any]:
    return {
        "id": schedule.id,
        "owner": schedule.owner,
        "kind": schedule.kind,
        "cron": schedule.timing.cron or None,
        "next_at_ms": schedule.next_ms,
        "last_at_ms": schedule.last_ms or None,
        "error": schedule.error[0] if schedule.error else None,
    }


def _happened(points: Reversible[Point]) -> list[dict[str, Any]]:
    """Return the newest events of the hour, the newest first."""
    events = ((point, event) for point in reversed(points) for event in point.events)
    return [
        {
            "at_ms": point.at_ms,
            "what": event.what,
            "process": event.process,
            "count": event.count,
            "ids": event.ids,
        }
        for point, event in islice(events, EVENTS_SHOWN)
    ]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
