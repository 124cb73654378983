"""The time limits of requests: how long a prompt may wait for a worker, and its deadline.

Both stand in meta, in ms: `queue_wait`, since the prompt last began to wait, and `deadline`, since
the generation was created. So a takeover does not change the limits, and all times are of Redis's
clock. The worker that holds a generation ends it at its deadline (workers/deadline.py). If no
worker holds the generation, `begin` ends it, or the janitor, which finds the generation in the
index `due` of its partition.

Every coroutine here may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass

from shared.errors import Unavailable
from shared.log.events import Counts, End
from shared.log.records import RESTORE_WITHIN_S, failed
from shared.log.store import Store
from shared.queue.leaving import forget
from shared.queue.partitions import partitions_of
from shared.queue.turns import leave_lines
from shared.redis import keys
from shared.redis.client import Command, raise_unless_partial, translated
from shared.redis.pipeline import Call
from shared.redis.shards import is_partly_away

TIME_LIMIT_S_MAX = 604_800.0  # a longer time limit counts as this: seven days
# A worker ends a generation at its deadline itself. After this time the janitor does it.
HOLDER_LATE_S = 5.0
PRODUCER_LOOK_S = 1.0  # until the first look at a producer's generation with a deadline or a grace
DUE_PER_PASS = 1_000  # of each partition, those whose time came first
COUNTED_AS = {
    "queue_timeout": "queue_timeouts",
    "deadline_exceeded": "deadlines_exceeded",
    "cancelled": "waits_abandoned",
    "producer_lost": "producers_lost",
}
# A producer counts as lost only if two checks, this many seconds apart, find no lease. Redis may
# have been unreachable for the producer before the first check.
SPARE_S = 10.0


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """The time limits of a prompt, s; above 0, at most `TIME_LIMIT_S_MAX`. None: no limit.

    Attributes:
        queue_wait_s: the longest wait for a worker, each time that the prompt waits.
        deadline_s: from its acceptance to its end.
    """

    queue_wait_s: float | None = None
    deadline_s: float | None = None


def timed_out(wait_s: float) -> End:
    """Return the `end` of a generation that no worker took within `wait_s`."""
    return failed(
        "queue_timeout", f"no worker took it within {wait_s:.15g} s: ask again", retryable=True
    )


def deadline_passed(deadline_s: float, usage: Counts | None) -> End:
    """Return the `end` of a generation that was not done within `deadline_s`.

    It is not retryable: a client that repeats the request would spend the same time again.
    """
    message = f"not done within {deadline_s:.15g} s: ask again with more time"
    return failed("deadline_exceeded", message, retryable=False, usage=usage)


def limit_fields(limits: TimeLimits) -> dict[str, str | bytes]:
    """Return the fields of meta for the time limits of a prompt."""
    given = {"queue_wait": limits.queue_wait_s, "deadline": limits.deadline_s}
    return {name: str(_ms(limit_s)) for name, limit_s in given.items() if limit_s is not None}


async def note_due(
    store: Store, limited: Sequence[tuple[str, TimeLimits]], since_ms: int | None = None
) -> None:
    """Put prompts with a time limit into the index `due`; nothing is sent for those without.

    Args:
        since_ms: when they were created, Redis's clock; None: just now.
    """
    shortest = {
        generation_id: min(given)
        for generation_id, limits in limited
        if (given := [s for s in (limits.queue_wait_s, limits.deadline_s) if s is not None])
    }
    if not shortest:
        return
    since_ms = await store.now_ms() if since_ms is None else since_ms
    partitions = partitions_of(store.settings)
    commands: list[Command] = [
        ("ZADD", keys.due(partitions.of(name)), since_ms + _ms(limit_s), name)
        for name, limit_s in shortest.items()
    ]
    await store.scripts.pipeline.run(commands)


async def watch_producer(store: Store, generation_id: str, within_s: float) -> None:
    """Put a generation of an outside producer into the index `due`, unless it is due sooner.

    Each look at the generation sets the time of the next one (lapse.lua).

    Args:
        within_s: the first look: the lease, or less if the generation may end earlier.
    """
    tag, now_ms = partitions_of(store.settings).of(generation_id), await store.now_ms()
    due: Command = ("ZADD", keys.due(tag), "LT", now_ms + _ms(within_s), generation_id)
    await store.scripts.pipeline.run([due])


async def end_due(store: Store, tag: str, now_ms: int) -> Counter[str]:
    """End the generations of a partition whose time is over, those that are due first.

    Returns:
        how many ended, by the name of the counter.
    """
    with translated():
        members = await store.redis.zrangebyscore(
            keys.due(tag), "-inf", now_ms, start=0, num=DUE_PER_PASS, withscores=True
        )
    due_ms = {member.decode(): score for member, score in members}
    since_ms = now_ms - RESTORE_WITHIN_S * 1000
    expected = {name for name, score in due_ms.items() if score > since_ms}
    return await end_hopeless(store, list(due_ms), expected=expected)


async def end_waiting(store: Store, ids: Sequence[str]) -> Counter[str]:
    """As `end_hopeless`, for those of `ids` that have a time limit or a grace."""
    with translated():
        pipeline = store.redis.pipeline(transaction=False)
        for generation_id in ids:
            pipeline.hmget(keys.meta(generation_id), ["grace", "queue_wait", "deadline"])
        found = await pipeline.execute(raise_on_error=not store.scripts.is_sharded) if ids else []
    limited = [
        name
        for name, fields in zip(ids, found, strict=True)
        if not isinstance(fields, Exception) and any(fields)
    ]
    return await end_hopeless(store, limited)


async def end_hopeless(
    store: Store, ids: Sequence[str], *, expected: Container[str] = ()
) -> Counter[str]:
    """End those generations without a worker whose time is over or whose readers are gone.

    Args:
        expected: those that stay in the index although they are absent, because they may still
            appear and no later call would put them into the index again. A node adds the
            generation of a producer to the index before it creates the generation. A worker
            restores a generation that Redis has lost.

    Returns:
        how many ended, by the name of the counter.
    """
    outcomes = await _lapse(store, ids)
    partitions, ended, kept = partitions_of(store.settings), dict[str, str](), set[str]()
    for generation_id, (outcome, detail) in zip(ids, outcomes, strict=True):
        if outcome == "absent" and generation_id in expected:
            kept.add(generation_id)
        if outcome == "ok":
            ended[generation_id] = detail
        if outcome in ("ok", "ended"):
            # Before it leaves the index: a generation of an outside producer is in no other one.
            # The process that wrote its end may have died before this step.
            try:
                await forget(store, generation_id)
            except Unavailable:
                if not is_partly_away(store.redis):
                    raise
                kept.add(generation_id)  # one of its records is on a shard that is away
    with translated():
        pipeline = store.redis.pipeline(transaction=False)
        for generation_id, (outcome, detail) in zip(ids, outcomes, strict=True):
            name = keys.due(partitions.of(generation_id))
            if outcome == "later" and detail != "0":
                pipeline.zadd(name, {generation_id: int(detail)})
            elif outcome != "away" and generation_id not in kept:
                pipeline.zrem(name, generation_id)
            if outcome == "ok":
                # A worker of an older version holds it and has no timer: this stops it.
                pipeline.publish(keys.CANCEL, generation_id)
        if ids:
            await pipeline.execute()
    for priority in keys.PRIORITIES:
        await leave_lines(store, list(ended), priority)
    return Counter(COUNTED_AS[code] for code in ended.values())


async def _lapse(store: Store, ids: Sequence[str]) -> list[tuple[str, str]]:
    """Run `lapse` for many generations in one round trip; its replies as text, in order."""
    calls: list[tuple[str, Call]] = []
    for name in ids:
        touched = (keys.meta(name), keys.log(name), keys.readers(name))
        calls.append(("lapse", (touched, [store.retention_ms, _ms(HOLDER_LATE_S), _ms(SPARE_S)])))
    replies = await store.scripts.run_mixed(calls)
    raise_unless_partial(replies)
    return [
        ("away", "") if isinstance(reply, Exception)  # a server of a cluster
        else (reply[0].decode(), b"".join(reply[1:]).decode())
        for reply in replies
    ]  # fmt: skip


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
