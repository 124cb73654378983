"""What the health of the backends needs of others."""

from __future__ import annotations

from typing import Protocol

from shared.backends.notes import Note


class Sharer(Protocol):
    """Shares the notes of a worker with the others."""

    def note(self, backend: str, note: Note) -> None:
        """Write a note soon."""

    def want_trial(self, backend: str) -> None:
        """Ask for the trial of a backend soon; `BackendHealth.grant_trial` is the answer."""

    async def claim_trial(self, backend: str) -> bool:
        """Ask for the trial of a backend now; whether this worker got it."""
        ...


class SlotTaker(Protocol):
    """Takes slots of backends (workers/health/gate.py)."""

    async def take(self, backend: str, generation_id: str) -> bool: ...

    def done(self, backend: str, generation_id: str) -> None:
        """Give the slot of a generation back soon: its call is over, and its run may go on."""
