"""How many slots of a worker each lane may take. Pure arithmetic.

Batch entries take at most three quarters of the slots. While batch entries wait, at least one slot
serves them, however busy the interactive lane is. A worker with a single slot reads the interactive
lane first.
Source: docs/batches.md, "Beside people".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shared.queue.lanes import batch_slots_max

__all__ = ["batch_slots_max", "free_slots", "places_to_wait_on", "rounds"]


def free_slots(slots: int, running: int, running_batch: int) -> dict[str, int]:
    """Return how many more entries of each lane may start; 0 or more."""
    free = max(0, slots - running)
    batch = max(0, min(free, batch_slots_max(slots) - running_batch))
    return {"resume": free, "interactive": free, "batch": batch}


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


def places_to_wait_on(
    tags: Sequence[str], slots: int, running: int, running_batch: int
) -> dict[str, list[str]]:
    """Return the lanes of one blocking read in each partition, by the tag of the partition.

    A blocking read can return one entry of each lane, so there are never more lanes in all than
    free slots. If the slots do not suffice, each partition gets its interactive lane first.

    Args:
        tags: of the partitions without a blocking read. The entries that other reads may return
            count as running.
    """
    places: dict[str, list[str]] = {}
    free, batch = slots - running, batch_slots_max(slots) - running_batch
    for lane, most in (("interactive", free), ("resume", free), ("batch", batch)):
        some = tags[: max(0, min(most, free))]
        for tag in some:
            places.setdefault(tag, []).append(lane)
        free -= len(some)
    return places
