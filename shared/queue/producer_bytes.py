"""Counts the stored bytes of an outside producer's generation against its owner.

The record is that of workers/writing/owner_meter.py, at the same steps of growth. If the owner is
far past the limit, the generation ends, as it does under a worker.
"""

from __future__ import annotations

from shared.log import owner_bytes
from shared.log.owner_bytes import ENDED_AT, OWNER_COUNT_STEP_BYTES, SCRIPT, GenerationBytes
from shared.log.producing import Appended
from shared.log.records import Meta, failed
from shared.log.store import Store


async def count_bytes(store: Store, meta: Meta, appended: Appended) -> str:
    """Count the log if it has grown over a step, and return the status of the generation then.

    Raises:
        Unavailable: Redis did not answer in time. The repeated append does not count again; the
            next step counts the whole log.
    """
    before, after = appended.bytes_before, appended.bytes_after
    if before // OWNER_COUNT_STEP_BYTES == after // OWNER_COUNT_STEP_BYTES:
        return appended.status
    settings = store.settings
    kept = GenerationBytes(meta.owner, meta.generation_id, after, 0)  # the request stays counted
    total = int(await store.scripts.run(SCRIPT, *owner_bytes.unfinished(kept, settings)))
    if total <= ENDED_AT * settings.owner_bytes_max:
        return appended.status
    message = owner_bytes.far_past_message(total, settings)
    end = failed("owner_full", message, retryable=False)
    await store.close(meta.generation_id, end)
    return end.status
