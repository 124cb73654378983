"""The turns of owners: within a lane, an owner with many prompts does not delay the others.

An owner has at most one open turn on a lane: one entry, or as many as its weight. Further entries
wait in the line of the owner, a sorted set. The worker that takes the last entry of a turn calls
`advance`, which moves the next entries of this owner to the end of the lane. So the lane itself is
the rotation, and a new owner waits behind one turn of each other owner. Entries on the lane are
complete: a worker of a version without turns can run them, and the janitor advances for it.

A deployment without credentials has only one owner, `anonymous`, so there are no turns.

Invariant: an owner with a line has an open turn, or a worker is about to call `advance`, or the
next pass of the janitor calls `advance`. Safety does not depend on turns, because `begin` decides
which worker holds a generation.
Every coroutine here may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from shared.backends.slots import leave_backends
from shared.config.credentials import ANONYMOUS
from shared.config.limits import OWNER_WEIGHT_MAX
from shared.log.store import Store
from shared.queue.entries import Delivery, encode_entry
from shared.queue.partitions import partitions_of
from shared.redis import keys
from shared.redis.client import raise_unless_partial, translated
from shared.redis.pipeline import Call, Pipeline
from shared.redis.scripts import Scripts

LOST_TURN_S = 10.0  # a turn that is so old must have its entry on the lane
REPAIR_ENTRIES = 16  # that the janitor moves for workers which do not advance


class Turn(NamedTuple):
    """The open turn of an owner on a lane."""

    lane: str
    owner: str  # digest


def entering(
    generation_id: str, *, owner: str, priority: str, model: str, tag: str, weight: int
) -> tuple[list[str], bytes, list[str | int]]:
    """Return the keys, the entry and the last arguments of an `enqueue` call."""
    names = [keys.lane(priority, tag), keys.waiting(priority, tag)]
    if owner == ANONYMOUS:
        return names, encode_entry(generation_id, priority, model), []
    digest = keys.digest_of(owner)
    names += [keys.turns(priority, tag), keys.line(priority, digest, tag)]
    entry = encode_entry(generation_id, priority, model, digest)
    return names, entry, [digest, max(1, min(OWNER_WEIGHT_MAX, weight))]


async def advance(
    scripts: Scripts, taken: Sequence[Delivery], free: Mapping[str, int] | None = None
) -> int:
    """Let the owners of entries that were read go on to their next turns.

    Call it for each entry that was read or claimed, whether it was started or not.

    Args:
        free: how many entries of each lane the caller can start at once. They are shared by the
            owners that wait.

    Returns:
        how many entries were moved to the lanes.
    """
    last = {
        (delivery.lane, delivery.tag, delivery.ticket.owner): delivery
        for delivery in taken
        if delivery.ticket is not None and delivery.ticket.owner
    }
    calls = [
        _call(lane, owner, tag, [delivery.entry_id, (free or {}).get(lane, 0)])
        for (lane, tag, owner), delivery in last.items()
        if lane in keys.PRIORITIES
    ]
    return await _run(scripts, calls)


async def weight_of(pipeline: Pipeline, lane: str, owner: str, tag: str) -> int:
    """Return how many entries the open turn of an owner may have; 1 if it has none.

    Args:
        owner: digest.
    """
    if not owner:
        return 1
    (turn,) = await pipeline.run([("HGET", keys.turns(lane, tag), owner)])
    if not isinstance(turn, bytes):
        return 1
    return max(1, int(turn.partition(b" ")[2]))


async def ensure_turns(store: Store, ids: Sequence[str], priority: str) -> set[str]:
    """Open a turn for each of these owners that has a line and, after a loss, no turn.

    Returns:
        the ids whose entries wait in lines. The caller must not treat them as lost.
    """
    places = await _places(store, ids, priority)
    with translated():
        pipeline = store.redis.pipeline(transaction=False)
        for tag, digest, entry in places.values():
            pipeline.zscore(keys.line(priority, digest, tag), entry)
        scores = await pipeline.execute() if places else []
    waiting = [name for name, score in zip(places, scores, strict=True) if score is not None]
    owners = {places[name][:2] for name in waiting}
    await _run(store.scripts, [_call(priority, digest, tag, ["", 0]) for tag, digest in owners])
    return set(waiting)


async def leave_lines(store: Store, ids: Sequence[str], priority: str) -> None:
    """Take generations that have ended out of the lines of owners and of backends.

    So they cost no turn, and no figure counts them.
    """
    await leave_backends(store.redis, ids)
    places = await _places(store, ids, priority)
    if places:
        with translated():
            pipeline = store.redis.pipeline(transaction=False)
            for tag, digest, entry in places.values():
                pipeline.zrem(keys.line(priority, digest, tag), entry)
            await pipeline.execute()


async def repair(store: Store, tag: str, before: Collection[Turn] = ()) -> set[Turn]:
    """Advance where the worker that took a turn did not: it died, or its version has no turns.

    Args:
        before: what the last call of this process returned. An owner that is stuck again has
            workers which do not advance, so it gets several entries; otherwise a worker may be
            about to advance, and the owner gets one turn.

    Returns:
        the owners whose turns were taken, with their lanes.
    """
    now_ms, stuck = await store.now_ms(), dict[Turn, bytes]()
    for lane in keys.PRIORITIES:
        turns = await _open_turns(store, lane, tag)
        delivered = await _last_delivered(store, lane, tag) if turns else (0, 0)
        old = [
            turn for owner, turn in turns.items()
            if _id(turn) > delivered and _id(turn)[0] < now_ms - LOST_TURN_S * 1000
        ]  # fmt: skip
        lost = await _absent(store, lane, tag, old)
        for owner, turn in turns.items():
            if _id(turn) <= delivered or turn in lost:
                stuck[Turn(lane, owner)] = turn
    calls = [
        _call(*place, tag, [entry_id, REPAIR_ENTRIES if place in before else 0])
        for place, entry_id in stuck.items()
    ]
    await _run(store.scripts, calls)
    return set(stuck)


async def is_delivered(store: Store, lane: str, tag: str, entry_id: bytes) -> bool:
    """Whether a worker has read an entry of a lane. False: also if the lane has lost its group."""
    return _id(entry_id) <= await _last_delivered(store, lane, tag)


async def _run(scripts: Scripts, calls: Sequence[Call]) -> int:
    """Advance, and return the number of moved entries; on a cluster, where the servers answer."""
    replies = await scripts.run_mixed([("advance", call) for call in calls])
    raise_unless_partial(replies)
    return sum(reply for reply in replies if isinstance(reply, int))


def _call(lane: str, owner: str, tag: str, args: list[Any]) -> Call:
    names = [keys.lane(lane, tag), keys.turns(lane, tag), keys.line(lane, owner, tag)]
    return names, [owner, *args]


async def _places(
    store: Store, ids: Sequence[str], priority: str
) -> dict[str, tuple[str, str, bytes]]:
    """Return the partition, the owner's digest and the entry of those that may be in a line."""
    partitions = partitions_of(store.settings)
    with translated():
        pipeline = store.redis.pipeline(transaction=False)
        for generation_id in ids:
            pipeline.hmget(keys.meta(generation_id), ["owner", "model"])
        fields = await pipeline.execute(raise_on_error=not store.scripts.is_sharded) if ids else []
    found: dict[str, tuple[str, str, bytes]] = {}
    for generation_id, found_fields in zip(ids, fields, strict=True):
        if isinstance(found_fields, Exception):  # a server of a cluster is away
            continue
        owner, model = found_fields
        if owner and model and owner != ANONYMOUS.encode():
            digest = keys.digest_of(owner.decode("utf-8", "surrogatepass"))
            entry = encode_entry(generation_id, priority, model.decode(), digest)
            found[generation_id] = partitions.of(generation_id), digest, entry
    return found


def _id(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)


async def _open_turns(store: Store, lane: str, tag: str) -> dict[str, bytes]:
    """Return the id of the last entry of each turn, by owner. At most `TAILRACE_QUEUE_MAX`."""
    with translated():
        found = await store.redis.hgetall(keys.turns(lane, tag))  # type: ignore[misc]
    return {owner.decode(): turn.partition(b" ")[0] for owner, turn in found.items()}


async def _last_delivered(store: Store, lane: str, tag: str) -> tuple[int, int]:
    """Return the id of the newest entry of a lane that a worker has read."""
    with translated():
        try:
            groups = await store.redis.xinfo_groups(keys.lane(lane, tag))
        except ResponseError as exc:
            if "no such key" not in str(exc):
                raise
            return 0, 0  # the lane was lost
    ids = [group["last-delivered-id"] for group in groups if group["name"] == keys.GROUP.encode()]
    return max(map(_id, ids), default=(0, 0))


async def _absent(store: Store, lane: str, tag: str, ids: Sequence[bytes]) -> set[bytes]:
    """Return those entries that are not on the lane."""
    with translated():
        pipeline = store.redis.pipeline(transaction=False)
        for entry_id in ids:
            pipeline.xrange(keys.lane(lane, tag), entry_id, entry_id)
        found = await pipeline.execute() if ids else []
    return {entry_id for entry_id, entries in zip(ids, found, strict=True) if not entries}
