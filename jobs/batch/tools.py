"""What every part of a batch's run needs. Holds references and no logic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.owners import Owners
from shared.accept import Acceptor
from shared.batches import Batches
from shared.files import FileStore
from shared.models import Model
from shared.redis_client import Client
from shared.settings import Settings
from shared.store import Store


@dataclass(frozen=True, slots=True)
class Tools:
    """One jobs process's.

    Attributes:
        name: of the process.
        store: of the generations.
        log_store: of the batches' own logs.
        owners: whose lines may be asked.
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
