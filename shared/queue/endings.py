"""Cancels generations from outside their holder: the log first, then the queue."""

from __future__ import annotations

from collections.abc import Sequence

from shared.errors import Expired
from shared.log.events import End
from shared.log.ids import EventId
from shared.log.records import Ended, Meta
from shared.log.store import Store
from shared.queue.lanes import forget
from shared.queue.partitions import partitions_of
from shared.redis import keys
from shared.redis.client import translated

CANCELLED = End(status="cancelled", finish_reason="cancelled")


async def cancel(store: Store, generation_id: str) -> Meta | None:
    """End a generation as cancelled, unless it has ended, and notify its worker.

    Returns:
        the meta after the cancel; None: the generation is absent.

    Raises:
        Expired: the generation ended so long ago that its log is gone.
        Unavailable: Redis did not answer in time; repeating it is safe.
    """
    outcome = await store.close(generation_id, CANCELLED)
    if isinstance(outcome, EventId):
        # Only for speed: without this message the next append or renewal stops the worker.
        await store.publish(keys.CANCEL, generation_id.encode())
        await forget(store, generation_id)
    meta = await store.meta(generation_id)
    if isinstance(outcome, Ended) and meta is not None and meta.is_ended:
        (top,) = await store.tops([generation_id])
        if top.id is None:
            raise Expired
    return meta


async def cancel_many(store: Store, ids: Sequence[str]) -> None:
    """Cancel many generations in two round trips; ended ones do not change.

    Raises:
        Unavailable: Redis did not answer in time; repeating it is safe.
    """
    await store.close_many(ids, CANCELLED)
    partitions = partitions_of(store.settings)
    with translated():
        pipeline = store.redis.pipeline(transaction=False)
        for generation_id in ids:
            pipeline.publish(keys.CANCEL, generation_id)
            for priority in keys.PRIORITIES:
                tag = partitions.of(generation_id)
                pipeline.zrem(keys.waiting(priority, tag), generation_id)
        await pipeline.execute()
