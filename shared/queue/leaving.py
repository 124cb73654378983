"""Removes an ended generation from the indexes, and records its usage.

Every step may be repeated. The entry of the queue stays until all steps are done, so if a process
dies before that, another process repeats the steps. So a webhook becomes due once, and an owner's
records count each generation once.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from shared.audio.record import FIELD as AUDIO
from shared.audio.record import end_audio
from shared.errors import Unavailable
from shared.later.webhooks import end_generation
from shared.log.owner_bytes import SCRIPT, ended_unsized
from shared.log.request_pieces import PIECES
from shared.log.store import Store
from shared.queue.allowance import MARK, SETTLE, settlement, tokens_of
from shared.queue.partitions import partitions_of
from shared.redis import keys
from shared.redis.client import Command, translated
from shared.redis.jobs_wake import wake_jobs
from shared.redis.pipeline import Call
from shared.redis.scripts import Scripts

# Fields of meta that decide which records and keys have to change at the end. The last three say
# that the generation is in the index `due`.
_LEFT = (
    "idem",
    "webhook",
    "owner",
    "wait",
    PIECES,
    AUDIO,
    MARK,
    "end",
    "queue_wait",
    "deadline",
    "producer",
)


async def forget(store: Store, generation_id: str) -> None:
    """Remove an ended generation from the indexes, and note its webhook as due.

    Its idempotency key then expires with its meta.
    """
    scripts, tag = Scripts(store.redis), partitions_of(store.settings).of(generation_id)
    commands = forget_commands(generation_id, tag)
    if store.settings.usage_days:
        commands = commands[:1]
        await scripts.run_all([leave_call(generation_id, tag)])
    found, *_ = await scripts.pipeline.run(commands)
    await follow_up(scripts, generation_id, store.retention_ms, found, tag=tag)


def forget_commands(generation_id: str, tag: str) -> list[Command]:
    """Return the commands of `forget`. The reply of the first one goes to `follow_up`."""
    return [
        ("HMGET", keys.meta(generation_id), *_LEFT),
        ("ZREM", keys.running(tag), generation_id),
        *(("ZREM", keys.waiting(priority, tag), generation_id) for priority in keys.PRIORITIES),
    ]


def leave_call(generation_id: str, tag: str) -> tuple[str, Call]:
    """Return the script that does the rest of `forget_commands`, and notes the usage.

    The usage is then counted by the janitor (shared/usage/settlement.py).
    """
    indexes = [keys.running(tag), *(keys.waiting(priority, tag) for priority in keys.PRIORITIES)]
    return "leave", ([*indexes, keys.unsettled(tag)], [generation_id])


async def leave_many(store: Store, ids: Sequence[str]) -> None:
    """Remove ended generations from the indexes; unlike `forget`, change no other record of them.

    If usage is counted, they leave all indexes, and their usage is noted. Otherwise they leave only
    the indexes of waiting generations: the worker or the janitor removes them from `running`.
    """
    partitions = partitions_of(store.settings)
    if store.settings.usage_days:
        await store.scripts.run_all([leave_call(each, partitions.of(each)) for each in ids])
        return
    with translated():
        pipeline = store.redis.pipeline(transaction=False)
        for generation_id in ids:
            for priority in keys.PRIORITIES:
                pipeline.zrem(keys.waiting(priority, partitions.of(generation_id)), generation_id)
        await pipeline.execute()


async def follow_up(
    scripts: Scripts,
    generation_id: str,
    retention_ms: int,
    found: Any,
    *,
    tag: str,
    recorded: Container[str] = (),
) -> None:
    if isinstance(found, Exception):
        raise Unavailable(f"Redis refuses: {found}") from found
    redis = scripts.redis
    idempotency, webhook, owner, wait, pieces, audio, is_limited, end, *time_limits = found
    records: list[tuple[str, Call]] = []
    if owner and not wait:  # only lines of a batch have `wait`: their bytes are not counted
        records.append((SCRIPT, ended_unsized(owner.decode(), generation_id, retention_ms)))
    if owner and is_limited:
        records.append((SETTLE, settlement(owner.decode(), generation_id, tokens_of(end))))
    await scripts.run_all([record for record in records if record[0] not in recorded])
    if owner and audio:
        await end_audio(scripts, owner.decode(), generation_id)
    if idempotency:
        with translated():
            # 1 s before meta expires: a key must never name an absent generation.
            await redis.pexpire(idempotency, max(1, 2 * retention_ms - 1000))
    if pieces:
        with translated():
            await redis.pexpire(keys.request(generation_id), 2 * retention_ms)
    if any(time_limits):
        with translated():
            await redis.zrem(keys.due(tag), generation_id)
    if webhook and await end_generation(redis, generation_id):
        await wake_jobs(redis)
