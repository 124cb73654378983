"""What processes report for the console: the runs of a worker, a node, a point of the history.

Each report is JSON. A report of another version that cannot be read is left out, so that versions
may run beside each other. No report holds a piece of a prompt or of an answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TypeVar

import msgspec

from shared.queue.happenings import Happening

POINT_MODELS_MAX = 12

_Report = TypeVar("_Report", bound=msgspec.Struct)


class LiveRun(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One generation that a worker runs, at the time of the worker's report.

    Attributes:
        backend: the kind of the backend, or the name of the server where a model has several.
        created_at_ms: when the generation was accepted, Redis's clock.
        tokens: pieces of text in this attempt so far.
        idle_ms: since the last output of the backend; -1: none came yet.
    """

    id: str
    owner: str
    model: str
    backend: str
    priority: str
    created_at_ms: int
    attempt: int
    tokens: int
    idle_ms: int


class NodeReport(msgspec.Struct, frozen=True):
    """The report of an API node about itself.

    Attributes:
        at_ms: Redis's clock.
        readers: open readers by transport.
        counters: events since the node started, by the names of the hub's metrics.
        redis_s: how long Redis took to answer the round before this report, s.
        loop_lag_s: the longest lag of the event loop since the last report, s.
        readers_of: readers by generation, while a console is open.
        happened, happened_count: as in `Happenings`.
    """

    node: str
    at_ms: int
    started_at: int
    is_draining: bool
    readers: dict[str, int]
    counters: dict[str, int]
    redis_s: float
    loop_lag_s: float
    readers_of: dict[str, int] = {}
    happened: list[Happening] = []
    happened_count: int = 0


class Occurrences(msgspec.Struct, frozen=True, array_like=True):
    """That something happened `count` times in one process, in the time of one point.

    Attributes:
        ids: generations that it happened to, the newest; not all of them, if there were many.
    """

    what: str
    process: str
    count: int
    ids: list[str] = []


class ModelFigures(msgspec.Struct, frozen=True, array_like=True):
    """The attempts of one model in the time of one point: histograms of shared/console/histogram.py

    Attributes:
        waits: how long prompts waited for an attempt that began.
        runs: how long attempts took that ended.
    """

    waits: dict[int, int] = {}
    runs: dict[int, int] = {}


class Point(msgspec.Struct, frozen=True, omit_defaults=True):
    """The figures of `POINT_S` seconds of the whole deployment. None: nothing to measure.

    Attributes:
        at_ms: the end of these seconds, Redis's clock, on a whole multiple of `POINT_S`.
        seconds: how long the figures cover: from one report of a node to another.
        first_p50_s, first_p99_s: from the acceptance of a generation to its first token.
        gap_p50_s, gap_p99_s: the longest pause of an answer that ended within a worker's report.
        gap_max_s: the longest of these, and of the pauses that last.
        tokens_per_s: pieces of text from all backends.
        redis_s, loop_lag_s: the worst node.
        waiting, running: generations.
        models: the models with the most attempts, `POINT_MODELS_MAX` at most.
    """

    at_ms: int
    seconds: float = 0.0
    tokens_per_s: float = 0.0
    answers: int = 0
    first_p50_s: float | None = None
    first_p99_s: float | None = None
    gap_p50_s: float | None = None
    gap_p99_s: float | None = None
    gap_max_s: float | None = None
    redis_s: float | None = None
    loop_lag_s: float | None = None
    waiting: int = 0
    running: int = 0
    readers: int = 0
    events: list[Occurrences] = []
    models: dict[str, ModelFigures] = {}


_runs = msgspec.json.Decoder(list[LiveRun])
_nodes = msgspec.json.Decoder(NodeReport)
_points = msgspec.json.Decoder(Point)


def read_runs(raw: bytes) -> list[LiveRun]:
    """Return the runs of a worker's report."""
    with suppress(msgspec.MsgspecError):
        return _runs.decode(raw)
    return []


def read_nodes(raws: Iterable[bytes]) -> list[NodeReport]:
    """Return the reports of nodes."""
    return _read(_nodes, raws)


def read_points(raws: Iterable[bytes]) -> list[Point]:
    """Return the points of a history."""
    return _read(_points, raws)


def _read(decoder: msgspec.json.Decoder[_Report], raws: Iterable[bytes]) -> list[_Report]:
    found = []
    for raw in raws:
        with suppress(msgspec.MsgspecError):  # another version wrote this report
            found.append(decoder.decode(raw))
    return found
