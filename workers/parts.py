"""The objects that all runs of one worker share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.config.models import Model
from shared.config.settings import Settings
from shared.log.store import Store
from shared.metrics.answers import NO_METRICS, AnswerMetrics
from shared.queue.lanes import Queue
from shared.timeline.writer import TimelineWriter
from workers.audio.bells import AudioBells
from workers.backends import Backend
from workers.figures import WorkerFigures
from workers.health.health import BackendHealth
from workers.stages import Stages
from workers.stages.contract import Services
from workers.takeover.verdicts import Verdicts
from workers.writing.appender import Appender
from workers.writing.sharded_appender import ShardedAppender

# A worker's metrics, in the order of docs/operations.md.
COUNTERS = (
    "generations",
    "pieces",
    "attempts_failed",
    "postponed",
    "takeovers",
    "leases_lost",
    "handed_over",
    "backend_calls",
    "backend_failures",
    "continued_elsewhere",
    "hedges",
)


@dataclass(frozen=True, slots=True)
class Takeover:
    """When lapsed leases may be taken over. Times are Redis's clock, ms; 0: no restriction.

    Attributes:
        quiet_until_ms: before this, no lapsed lease is taken over.
        forgive_until_ms: a lease that lapsed before this does not count as a failure.
    """

    quiet_until_ms: int = 0
    forgive_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The objects that all runs of one worker share.

    Attributes:
        worker: the worker's name, unique in the deployment.
        verdicts: how the models continue an answer.
        health: which backends may be asked, and what is known of them.
        clock: seconds, monotonic.
        takeover: returns the current takeover rule.
        counters: the worker's metrics, by name.
        metrics: takes the measures of attempts, for the metrics port.
        timeline: writes the moments of generations, off the way of the tokens.
        spawn: starts a background task; the worker waits for it when it drains.
        figures: what the runs measure, for the console.
        stages: what stands between the models and the log.
        bells: wake the runs whose audio input has grown.

    Raises:
        ConfigurationError: a stage of a model cannot be built.
    """

    worker: str
    settings: Settings
    store: Store
    queue: Queue
    appender: Appender | ShardedAppender
    models: Mapping[str, Model]
    backends: Mapping[str, Backend]
    verdicts: Verdicts
    health: BackendHealth
    clock: Callable[[], float]
    takeover: Callable[[], Takeover]
    counters: dict[str, float]
    timeline: TimelineWriter
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    metrics: AnswerMetrics = NO_METRICS
    figures: WorkerFigures = field(default_factory=WorkerFigures)
    bells: AudioBells = field(default_factory=AudioBells)
    stages: Stages = field(init=False)

    def __post_init__(self) -> None:
        services = Services(self.settings, self.store.redis)
        object.__setattr__(self, "stages", Stages(self.models, services))  # the class is frozen

    def count(self, what: str, generation_id: str) -> None:
        """Count an event of a generation, which the console shows with its id."""
        self.counters[what] += 1
        self.figures.happenings.note(what, generation_id)
