"""How many of a worker's slots each lane may take. Pure arithmetic.

Batch lines alone never fill a worker (at most three quarters of its slots), and one always has a
slot when some wait, however busy the interactive lane is; but a lone slot is interactive first.
Source: docs/batches.md, "Beside people".
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.queue.lanes import batch_slots_max

__all__ = ["batch_slots_max", "lanes_to_wait_on", "rounds"]


def rounds(slots: int, running: int, running_batch: int) -> Iterator[tuple[str, int]]:
    """Yield (lane, how many to take) in the order in which the lanes are to be read.

    One lane is read per call, because Redis counts COUNT for each stream by itself.
    """
    free = slots - running
    if free <= 0:
        return
    batch = min(free, batch_slots_max(slots) - running_batch)
    yield "resume", free
    if running_batch == 0 and slots > 1:  # a lone slot is for whoever waits at a screen first
        yield "batch", 1
    yield "interactive", free
    if batch > 0:
        yield "batch", batch


def lanes_to_wait_on(slots: int, running: int, running_batch: int) -> tuple[str, ...]:
    """Which lanes one blocking read may name: each can give one entry, and all must have a slot."""
    free = slots - running
    wanted = ["interactive", "resume"]
    if running_batch < batch_slots_max(slots):
        wanted.append("batch")
    return tuple(wanted[: max(free, 0)])
