"""Removes an ended generation from the indexes, and records its usage.

Every step may be repeated. The entry of the queue and the places in the indexes stay until all
steps are done, so if a process dies before that, another process repeats the steps. So a webhook
becomes due once, and an owner's records count each generation once.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

from shared.audio.record import FIELD as AUDIO
from shared.audio.record import end_audio
from shared.later.webhooks import end_generation
from shared.log.owner_bytes import SCRIPT, ended_unsized
from shared.log.request_pieces import PIECES, piece_count
from shared.log.store import Store
from shared.queue.allowance import MARK, SETTLE, settlement, tokens_of
from shared.queue.partitions import partitions_of
from shared.redis import keys
from shared.redis.client import Command, raise_errors, translated
from shared.redis.jobs_wake import wake_jobs
from shared.redis.pipeline import Call
from shared.redis.scripts import Scripts, has_not_run

# Fields of meta that decide which records and keys have to change at the end.
_LEFT = (
    "idem",
    "webhook",
    "owner",
    "wait",
    PIECES,
    AUDIO,
    MARK,
    "end",
    "spent",
)
# Those of them that give `_follow_up` a step beside the records of the owner. The pieces of a large
# request do, too, but a begin returns the request itself.
_STEPS = (b"idem", b"webhook", AUDIO.encode())
# With one of these, the generation is in the index `due`.
_TIME_LIMITS = (b"queue_wait", b"deadline", b"producer")


class Ending(NamedTuple):
    """A generation that has ended, with the tag of its partition."""

    id: str
    tag: str
    retention_ms: int


async def forget(store: Store, generation_id: str) -> None:
    """Remove an ended generation from the indexes, and note its webhook as due.

    Its idempotency key then expires with its meta.
    """
    tag = partitions_of(store.settings).of(generation_id)
    ending, scripts = Ending(generation_id, tag, store.retention_ms), Scripts(store.redis)
    await _follow_up(scripts, ending, await scripts.pipeline.run(_look_commands(ending)))
    due = _due_command(ending)
    if store.settings.usage_days:
        await scripts.run_all([leave_call(generation_id, tag)])
        # Last: a generation of an outside producer is in no other index.
        await scripts.pipeline.run([due])
    else:
        await scripts.pipeline.run([*_index_commands(ending), due])


async def leave(
    scripts: Scripts,
    ending: Ending,
    acknowledging: Sequence[Command],
    *,
    records: Sequence[tuple[str, Call]],
    fields: Mapping[bytes, bytes] | None,
    counts_usage: bool,
) -> None:
    """As `forget`, for a generation with an entry in the queue, which is acknowledged last.

    All of it is one round trip if no step can be missing after the acknowledgement. Otherwise the
    acknowledgement has a round trip of its own, because only the entry makes a worker repeat the
    steps.

    Args:
        records, fields: as `Queue.leave`.
    """
    looking, leaving = _look_commands(ending), _index_commands(ending)
    if counts_usage:
        leaving = [await scripts.command(*leave_call(ending.id, ending.tag))]
    leaving += acknowledging
    recording = [await scripts.command(name, call) for name, call in records]
    # One server runs the calls in this order. Of a cluster, the server of the owner may be away
    # while that of the entry answers.
    is_one_trip = fields is not None and not _has_steps(fields)
    is_one_trip = is_one_trip and not (records and scripts.is_sharded)
    replies = await scripts.pipeline.run([*looking, *recording, *(leaving if is_one_trip else ())])
    found, replies = replies[: len(looking)], replies[len(looking) :]
    written = zip(records, replies[: len(records)], strict=True)
    await scripts.run_all([each for each, reply in written if isinstance(reply, Exception)])
    await _follow_up(scripts, ending, found, recorded={name for name, _ in records})
    if not is_one_trip:
        replies = await scripts.pipeline.run([_due_command(ending), *leaving])
    if counts_usage and has_not_run(replies[-len(leaving)]):
        await scripts.run_all([leave_call(ending.id, ending.tag)])


def _look_commands(ending: Ending) -> list[Command]:
    """Return the commands whose replies `_follow_up` reads."""
    meta = keys.meta(ending.id)
    return [("HMGET", meta, *_LEFT), ("PTTL", meta)]


def _index_commands(ending: Ending) -> list[Command]:
    waiting = (keys.waiting(priority, ending.tag) for priority in keys.PRIORITIES)
    return [("ZREM", index, ending.id) for index in (keys.running(ending.tag), *waiting)]


def _due_command(ending: Ending) -> Command:
    return ("ZREM", keys.due(ending.tag), ending.id)


def leave_call(generation_id: str, tag: str) -> tuple[str, Call]:
    """Return the script that does what `_index_commands` do, and notes the usage.

    The usage is then counted by the janitor (shared/usage/settlement.py).
    """
    indexes = [keys.running(tag), *(keys.waiting(priority, tag) for priority in keys.PRIORITIES)]
    return "leave", ([*indexes, keys.unsettled(tag)], [generation_id])


def _has_steps(fields: Mapping[bytes, bytes]) -> bool:
    """Whether a generation has more to change at its end than records of its owner and `running`.

    Args:
        fields: of meta, as the begin returned them, with the request in one piece.
    """
    is_large = piece_count(fields.get(b"request", b"")) > 0
    return is_large or any(fields.get(name) for name in (*_STEPS, *_TIME_LIMITS))


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


async def _follow_up(
    scripts: Scripts, ending: Ending, found: Sequence[Any], *, recorded: Container[str] = ()
) -> None:
    """Do the steps that follow an end. The caller removes the generation from the indexes later.

    Args:
        found: the replies to `_look_commands`.
        recorded: the names of the scripts whose records of the owner are written already.

    Raises:
        Unavailable: Redis did not answer in time, or refused; some steps may be done.
    """
    generation_id, _, retention_ms = ending
    raise_errors(found)
    fields, left_ms = found
    # A step that comes late, or again, must not outlive the meta of the generation.
    kept_ms = left_ms if left_ms > 0 else 2 * retention_ms
    redis = scripts.redis
    idempotency, webhook, owner, wait, pieces, audio, is_limited, end, spent = fields
    records: list[tuple[str, Call]] = []
    if owner and not wait:  # only lines of a batch have `wait`: their bytes are not counted
        records.append((SCRIPT, ended_unsized(owner.decode(), generation_id, retention_ms)))
    if owner and is_limited:
        records.append((SETTLE, settlement(owner.decode(), generation_id, tokens_of(end, spent))))
    await scripts.run_all([record for record in records if record[0] not in recorded])
    if owner and audio:
        await end_audio(scripts, owner.decode(), generation_id)
    if idempotency:
        with translated():
            # 1 s before meta expires: a key must never name an absent generation.
            await redis.pexpire(idempotency, max(1, kept_ms - 1000))
    if pieces:
        with translated():
            await redis.pexpire(keys.request(generation_id), kept_ms)
    if webhook and await end_generation(redis, generation_id):
        await wake_jobs(redis)
