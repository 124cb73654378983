"""How many slots of a worker each lane may take. Pure arithmetic.

Batch entries take at most three quarters of the slots. While batch entries wait, at least one slot
serves them, however busy the interactive lane is. A worker with a single slot reads the interactive
lane first.
Source: docs/batches.md, "Beside people".
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.queue.lanes import batch_slots_max

__all__ = ["batch_slots_max", "lanes_to_wait_on", "rounds"]


def rounds(slots: int, running: int, running_batch: int) -> Iterator[tuple[str, int]]:
    """Yield (lane, maximum number of entries) in the order in which to read the lanes.

    Each call reads one lane, because Redis applies COUNT to each stream separately.
    """
    free = slots - running
    if free <= 0:
        return
    batch = min(free, batch_slots_max(slots) - running_batch)
    yield "resume", free
    if running_batch == 0 and slots > 1:  # a single slot serves the interactive lane first
        yield "batch", 1
    yield "interactive", free
    if batch > 0:
        yield "batch", batch


def lanes_to_wait_on(slots: int, running: int, running_batch: int) -> tuple[str, ...]:
    """Return the lanes of one blocking read.

    A blocking read can return one entry of each lane, so there are never more lanes than free
    slots.
    """
    free = slots - running
    lanes = ["interactive", "resume"]
    if running_batch < batch_slots_max(slots):
        lanes.append("batch")
    return tuple(lanes[: max(free, 0)])
