"""Reads the entries of earlier attempts, for the holder that takes a generation over.

The holder needs these entries twice: to decide where to continue, and to write them again if Redis
loses them.
"""

from __future__ import annotations

from shared.errors import Unavailable
from shared.log.ids import EventId
from shared.log.log_reader import read_log
from shared.log.records import Entry
from shared.log.store import Store


async def read_earlier_entries(store: Store, generation_id: str, start_id: EventId) -> list[Entry]:
    """Return all entries before `start_id`, in order.

    Raises:
        Unavailable: Redis did not answer, or an entry is missing because the log changed meanwhile.
    """
    if start_id.seq == 1:
        return []
    log: list[Entry] = []
    await read_log(store, generation_id, lambda *entry: log.append(entry))
    found = [entry for entry in log if entry[0] < start_id]
    if len(found) != start_id.seq - 1:
        raise Unavailable("the log changed while it was read")
    return found
