"""Batches whose owner's work this process holds.

The owner has no credentials any more, or has used up the tokens of the day (jobs/owners.py).

A slice of a held batch collects the results of lines in flight, asks no lines and ends. Each slice
writes a `start` to the batch's log. So the next slice waits until there is work: another status, or
the end of the window; or for `HOLD_S`, because a line in flight may have ended late. Pure: the
caller gives the state in Redis, and the time.
"""

from __future__ import annotations

from collections.abc import Iterable

from jobs.owners import HOLD_S
from shared.batches.record import BatchProgress


class HeldBatches:
    """The held batches, and until when each gets no slice, monotonic seconds."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._until_s)

    def add(self, batch_id: str, now_s: float) -> None:
        """Hold a batch for `HOLD_S`."""
        self._until_s[batch_id] = now_s + HOLD_S

    def of(self, ids: Iterable[str], now_s: float) -> list[str]:
        """Return which of the unfinished batches are held now, and forget all others."""
        self._until_s = {
            batch_id: until_s
            for batch_id in ids
            if (until_s := self._until_s.get(batch_id, 0.0)) > now_s
        }
        return list(self._until_s)


def needs_no_slice(standing: BatchProgress | None, now_ms: int) -> bool:
    """Whether a held batch needs no slice. None: the batch is absent, and needs one."""
    return (
        standing is not None
        and standing.status == "in_progress"
        and now_ms < standing.expires_at_ms
    )
