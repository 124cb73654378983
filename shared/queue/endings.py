"""Cancels generations from outside their holder: the log first, then the queue."""

from __future__ import annotations

from collections.abc import Sequence

from shared.errors import Expired, Unavailable
from shared.log.events import Counts, End, Failure
from shared.log.ids import EventId
from shared.log.records import Ended, Meta
from shared.log.store import Store
from shared.queue.leaving import forget, leave_many
from shared.queue.turns import leave_lines
from shared.redis import keys
from shared.redis.client import translated
from shared.usage.counting import count_log

CANCELLED = End(status="cancelled", finish_reason="cancelled")


async def cancel(
    store: Store, generation_id: str, *, error: Failure | None = None, by: str = ""
) -> Meta | None:
    """End a generation as cancelled, unless it has ended, and notify its worker.

    Args:
        error: why, for its readers; None: its owner cancelled it.
        by: who asked for it, as `Store.close` says.

    Returns:
        the meta after the cancel; None: the generation is absent.

    Raises:
        Expired: the generation ended so long ago that its log is gone.
        Unavailable: Redis did not answer in time; repeating it is safe.
    """
    usage = await _usage_so_far(store, generation_id)
    end = End("cancelled", "cancelled", usage=usage, error=error)
    outcome = await store.close(generation_id, end, by=by)
    if isinstance(outcome, EventId):
        # Only for speed: without this message the next append or renewal stops the worker.
        await store.publish(keys.CANCEL, generation_id.encode())
        await forget(store, generation_id)
    meta = await store.meta(generation_id)
    if isinstance(outcome, EventId) and meta is not None:
        await leave_lines(store, [generation_id], meta.priority)
    if isinstance(outcome, Ended) and meta is not None and meta.is_ended:
        (top,) = await store.tops([generation_id])
        if top.id is None:
            raise Expired
    return meta


async def _usage_so_far(store: Store, generation_id: str) -> Counts | None:
    """Count the tokens of an answer that is cancelled now; None: it has none, or has ended.

    The worker cannot write them, because the cancel takes effect at once. Tokens that the worker
    appends between this count and the end are not counted.
    """
    try:
        meta = await store.meta(generation_id)
        if meta is None or meta.is_ended:  # a repeated cancel reads no log
            return None
        return await count_log(store, generation_id)
    except Unavailable:
        return None  # a cancel does not fail for want of its counts


async def cancel_many(store: Store, ids: Sequence[str]) -> None:
    """Cancel many lines of batches in a few round trips, whatever their number.

    Ended lines do not change.

    Raises:
        Unavailable: Redis did not answer in time; repeating it is safe.
    """
    await store.close_many(ids, CANCELLED, by="batch")
    with translated():
        pipeline = store.redis.pipeline(transaction=False)
        for generation_id in ids:
            pipeline.publish(keys.CANCEL, generation_id)
        await pipeline.execute()
    await leave_many(store, ids)
    await leave_lines(store, ids, "batch")
