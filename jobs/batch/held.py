"""Batches that are held in this process, because no key names their owner any more.

A slice of such a batch takes in what was in flight, asks nothing and leaves. Each slice writes a
`start` to the batch's log, so the next one waits until there is something to do: another status,
the end of its window, or `HOLD_S` later, when the late answer of a process that died may have come.
Pure: is given what Redis says, and the time.
"""

from __future__ import annotations

from collections.abc import Iterable

from jobs.owners import HOLD_S
from shared.batches.record import BatchProgress


class HeldBatches:
    """The batches, and until when each is left alone, monotonic seconds."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._until_s)

    def add(self, batch_id: str, now_s: float) -> None:
        self._until_s[batch_id] = now_s + HOLD_S

    def of(self, ids: Iterable[str], now_s: float) -> list[str]:
        """Return which of the unfinished batches are to be left alone; the others are forgotten."""
        self._until_s = {
            batch_id: until_s
            for batch_id in ids
            if (until_s := self._until_s.get(batch_id, 0.0)) > now_s
        }
        return list(self._until_s)


def needs_nobody(standing: BatchProgress | None, now_ms: int) -> bool:
    """Whether a held batch is still to be left alone; None: it is gone, as a look will find."""
    return (
        standing is not None
        and standing.status == "in_progress"
        and now_ms < standing.expires_at_ms
    )
