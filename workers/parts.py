"""What all runs of a worker share, handed down once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from shared.config.models import Model
from shared.config.settings import Settings
from shared.log.store import Store
from shared.queue.lanes import Queue
from workers.appender import Appender
from workers.backends import Backend


@dataclass(frozen=True, slots=True)
class Takeover:
    """From when on lapsed leases may be taken over, and which lapses are nobody's failure (ms)."""

    quiet_until_ms: int = 0
    forgive_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What all runs of a worker share."""

    worker: str
    settings: Settings
    store: Store
    queue: Queue
    appender: Appender
    models: Mapping[str, Model]
    backends: Mapping[str, Backend]
    clock: Callable[[], float]  # seconds, monotonic
    takeover: Callable[[], Takeover]
    counters: dict[str, float]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]  # ends with the runs
