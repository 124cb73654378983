"""The parts of a process that running a batch needs. Holds references and no logic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.batch.done_lines import DoneLines
from jobs.owners import Owners
from shared.batches.record import Batches
from shared.config.models import Model
from shared.config.settings import Settings
from shared.files.store import FileStore
from shared.log.store import Store
from shared.queue.accept import Acceptor
from shared.redis.client import Client


@dataclass(frozen=True, slots=True)
class BatchParts:
    """The parts of one jobs process.

    Attributes:
        name: of the process.
        store: the logs of generations.
        log_store: the logs of batches.
        owners: the owners whose lines may run.
        done_lines: the generations of committed lines, until they are settled.
    """

    name: str
    settings: Settings
    redis: Client
    store: Store
    log_store: Store
    acceptor: Acceptor
    batches: Batches
    files: FileStore
    models: Mapping[str, Model]
    owners: Owners
    done_lines: DoneLines
