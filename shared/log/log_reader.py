"""Reads the current log of a generation, entry by entry, for responses that do not wait.

Invariant: the caller gets one log from its first entry on, without a gap. If the log changes while
it is read, the read fails. Knows no dialect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shared.errors import Unavailable
from shared.log.ids import START, EventId
from shared.log.store import Store
from shared.text.large import FOLD_BYTES_MAX

PAGE_ENTRIES = 1_000


async def read_log(
    store: Store, generation_id: str, add: Callable[[EventId, bytes], None]
) -> EventId:
    """Call `add` with every entry in order. Return the id of the last one, or `START` if empty.

    Raises:
        Unavailable: Redis did not answer in time, or the log changed meanwhile.
    """
    start = START
    folded = 0
    while True:
        page = await store.page(generation_id, start, PAGE_ENTRIES)
        if start != START and (not page or page[0][0] != start):
            raise Unavailable("the log changed while it was read")
        # A page begins with the last entry of the page before.
        for event_id, raw in page[1:] if start != START else page:
            add(event_id, raw)
            folded += len(raw)
            if folded > FOLD_BYTES_MAX:
                folded = 0
                await asyncio.sleep(0)
        if len(page) < PAGE_ENTRIES:
            return page[-1][0] if page else START
        start = page[-1][0]
