"""Computes a point of the history from two readings of all reports. Pure.

A process that only the later reading has began between the readings, so all its counts belong to
the point. When a process ends, the counts after its last report are lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from shared.config.settings import SILENT_LEASES_MAX
from shared.console.board import Reading
from shared.console.histogram import Counts, merged, quantile, since
from shared.console.reports import POINT_MODELS_MAX, ModelFigures, NodeReport, Occurrences, Point
from shared.queue.happenings import newer
from shared.queue.presence import Presence

# Counters whose rise is an event, by the names of docs/operations.md, "Metrics".
WORKER_EVENTS = ("takeovers", "leases_lost", "handed_over", "attempts_failed", "postponed")
NODE_EVENTS = ("resumes", "repairs", "cuts", "resets", "reconnects")
EVENTS_MAX = 50  # of one point
IDS_MAX = 5  # generations of one event
NODE_SILENT_MS = 15_000  # a node counts as gone after three missing reports


class QueueState(NamedTuple):
    """Generations of the whole queue, and how long a silent worker counts as living, ms."""

    waiting: int
    running: int
    silent_ms: int


def silent_ms_of(lease_s: float) -> int:
    """Return after how long without a report a worker counts as gone, ms."""
    return round(SILENT_LEASES_MAX * lease_s * 1000)


def point_of(before: Reading, now: Reading, at_ms: int, queue: QueueState) -> Point:
    """Return the point of the time between two readings.

    Args:
        at_ms: the end of the point.
    """
    seconds = max(0.001, (now.now_ms - before.now_ms) / 1000)
    old = {each.worker: each for each in before.workers}
    firsts = merged(_risen(each, old, "first_tokens") for each in now.workers)
    gaps = merged(_risen(each, old, "gaps") for each in now.workers)
    tokens = sum(_rise(each, old, "tokens") for each in now.workers)
    nodes = living_nodes(now)
    silence_s = max((each.silence_s for each in living_workers(now, queue.silent_ms)), default=0.0)
    return Point(
        at_ms=at_ms,
        seconds=round(seconds, 3),
        tokens_per_s=round(tokens / seconds, 2),
        answers=sum(firsts.values()),
        first_p50_s=_rounded(quantile(firsts, 0.5)),
        first_p99_s=_rounded(quantile(firsts, 0.99)),
        gap_p50_s=_rounded(quantile(gaps, 0.5)),
        gap_p99_s=_rounded(quantile(gaps, 0.99)),
        gap_max_s=_rounded(max(filter(None, (quantile(gaps, 1.0), silence_s)), default=None)),
        redis_s=_rounded(max((node.redis_s for node in nodes), default=None)),
        loop_lag_s=_rounded(max((node.loop_lag_s for node in nodes), default=None)),
        waiting=queue.waiting,
        running=queue.running,
        readers=sum(sum(node.readers.values()) for node in nodes),
        events=list(events_between(before, now, queue.silent_ms))[:EVENTS_MAX],
        models=models_between(before, now),
    )


def living_nodes(reading: Reading) -> list[NodeReport]:
    """Return the nodes that have reported lately."""
    return [node for node in reading.nodes if reading.now_ms - node.at_ms <= NODE_SILENT_MS]


def living_workers(reading: Reading, silent_ms: int) -> list[Presence]:
    """Return the workers that have reported lately."""
    return [each for each in reading.workers if reading.now_ms - each.at_ms <= silent_ms]


def events_between(before: Reading, now: Reading, silent_ms: int) -> Iterator[Occurrences]:
    """Yield what happened between two readings, and which processes came and went."""
    old_workers = {each.worker: each for each in before.workers}
    for worker in now.workers:
        for name in WORKER_EVENTS:
            if count := round(_rise(worker, old_workers, name)):
                yield Occurrences(name, worker.worker, count, _ids(name, worker, old_workers))
    old_nodes = {each.node: each for each in before.nodes}
    for node in now.nodes:
        former = old_nodes.get(node.node)
        for name in NODE_EVENTS:
            count = node.counters.get(name, 0) - (former.counters.get(name, 0) if former else 0)
            if count > 0:
                yield Occurrences(name, node.node, count, _ids(name, node, old_nodes))
    yield from _comings("worker", *(_alive(reading, silent_ms) for reading in (before, now)))
    yield from _comings("node", _alive_nodes(before), _alive_nodes(now))


def models_between(before: Reading, now: Reading) -> dict[str, ModelFigures]:
    """Return the attempts between two readings, of the models that had the most."""
    old = {each.worker: each for each in before.workers}
    waits: dict[str, list[Counts]] = {}
    runs: dict[str, list[Counts]] = {}
    for worker in now.workers:
        former = old.get(worker.worker)
        for found, name in ((waits, "waits"), (runs, "runs")):
            known = getattr(former, name) if former else {}
            for model, counts in getattr(worker, name).items():
                if risen := since(counts, known.get(model, {})):
                    found.setdefault(model, []).append(risen)
    figures = {
        model: ModelFigures(merged(waits.get(model, ())), merged(runs.get(model, ())))
        for model in {*waits, *runs}
    }
    most = sorted(figures, key=lambda model: (-_attempts(figures[model]), model))
    return {model: figures[model] for model in most[:POINT_MODELS_MAX]}


def _attempts(figures: ModelFigures) -> int:
    return max(sum(figures.waits.values()), sum(figures.runs.values()))


def _ids(
    what: str, report: Presence | NodeReport, old: Mapping[str, Presence | NodeReport]
) -> list[str]:
    """Return the newest generations to which this happened since the earlier report."""
    name = report.worker if isinstance(report, Presence) else report.node
    former = old.get(name)
    found = newer(report.happened, report.happened_count, former.happened_count if former else 0)
    ids = [each.generation_id for each in found if each.what == what]
    return list(dict.fromkeys(reversed(ids)))[:IDS_MAX]


def _comings(kind: str, before: set[str], now: set[str]) -> Iterator[Occurrences]:
    yield from (Occurrences(f"{kind}_started", name, 1) for name in sorted(now - before))
    yield from (Occurrences(f"{kind}_gone", name, 1) for name in sorted(before - now))


def _alive(reading: Reading, silent_ms: int) -> set[str]:
    return {each.worker for each in living_workers(reading, silent_ms)}


def _alive_nodes(reading: Reading) -> set[str]:
    return {node.node for node in living_nodes(reading)}


def _rise(worker: Presence, old: Mapping[str, Presence], name: str) -> float:
    former = old.get(worker.worker)
    before = former.counters.get(name, 0.0) if former else 0.0
    return max(0.0, worker.counters.get(name, 0.0) - before)


def _risen(worker: Presence, old: Mapping[str, Presence], name: str) -> Counts:
    former = old.get(worker.worker)
    return since(getattr(worker, name), getattr(former, name) if former else {})


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 5)
