"""The care of a worker for its backends: connects the health, its sharing and the gate."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol

from shared.backends.breaker import Times
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.queue.lanes import Queue
from workers.backends.reading.rate_limit import RateLimit
from workers.health.gate import Entrant, Gate
from workers.health.health import BackendHealth
from workers.health.sharing import Sharing

log = logging.getLogger(__name__)


class Executable(Entrant, Protocol):
    """A run that the gate may let in.

    Attributes:
        is_superseded: another worker has the generation now, and with it the slot.
        held_ms: another worker held the generation when this run wanted to begin; None: none did.
    """

    is_superseded: bool
    held_ms: int | None

    async def execute(self) -> None: ...


class BackendAccess:
    """The care of one worker."""

    def __init__(self, queue: Queue, models: Mapping[str, Model], settings: Settings) -> None:
        self.health = BackendHealth(models, Times.of(settings.backend_cooldown_s))
        self.sharing = Sharing(self.health, queue.scripts, queue.worker)
        self.gate = Gate(self.health, queue, models, settings)

    def loops(self) -> Sequence[Coroutine[Any, Any, None]]:
        """Return the loops that run as long as the worker."""
        return self.sharing.run(), self.gate.run()

    def note_limit(self, model: str, limit: RateLimit) -> None:
        """Note what an answer said about the rate limits of a model's backend."""
        if (backend := self.health.backend_of(model)) != "":
            self.health.note_left(backend, limit.left)
            if limit.wait_s:
                until_ms = self.health.now_ms() + round(limit.wait_s * 1000)
                self.health.note_limit(backend, until_ms)

    async def execute(self, run: Executable) -> None:
        """Execute a run if its backend can take it; otherwise let its generation wait.

        A cancelled run gives nothing back: its slots come back when their leases are over. Neither
        does a run whose generation another worker holds, now or since before this run: the slot is
        that of the generation, so it is in use.
        """
        try:
            is_let_in = await self.gate.admit(run)
        except Unavailable as exc:  # the entry is kept, and a worker that reaches Redis claims it
            data = {"generation_id": run.ticket.id, "reason": str(exc)}
            log.warning("run abandoned", extra=data)
            self.gate.forget(run, may_be_asking=False)
            return
        if not is_let_in:
            return
        try:
            await run.execute()
        except asyncio.CancelledError:
            self.gate.forget(run, may_be_asking=True)
            raise
        except Exception:
            await self.gate.leave(run)
            raise
        if run.is_superseded or run.held_ms is not None:
            self.gate.forget(run, may_be_asking=run.is_superseded)
        else:
            await self.gate.leave(run)

    async def withdraw(self) -> None:
        """Delete what the worker has told about its backends.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        await self.sharing.withdraw()
