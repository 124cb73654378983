"""Reads the story of a generation: its timeline, and the moments that meta already has.

Meta has the acceptance and the end, so these cost no write, and a story never lacks them. The
moments come from several processes, each a moment after it happened, so they are sorted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shared.errors import Expired
from shared.log.records import Meta
from shared.log.snapshot import read_end
from shared.redis import keys
from shared.redis.client import Client, translated
from shared.timeline.moment import RANK, Moment, Timed, decode_moment
from shared.timeline.writer import MOMENTS_MAX

READ_MAX = 2 * MOMENTS_MAX  # Redis trims whole nodes of a stream, so there may be more than kept


async def read_story(redis: Client, meta: Meta, partition: str) -> list[Timed]:
    """Return the moments of a generation in their order.

    Args:
        partition: the tag of the generation's partition of the queue.

    Raises:
        Expired: the generation ended so long ago that its log is gone.
        Unavailable: Redis did not answer in time.
    """
    with translated():
        pipeline = redis.pipeline(transaction=False)
        pipeline.xrevrange(keys.timeline(meta.generation_id), count=READ_MAX)
        pipeline.exists(keys.log(meta.generation_id))
        found, has_log = await pipeline.execute()
    if meta.is_ended and not has_log:
        raise Expired
    stored = [
        Timed(int(fields[b"at"]), moment)
        for _, fields in reversed(found)
        if (moment := decode_moment(fields[b"e"])) is not None
    ]
    return in_order([*_beginning(meta, partition), *_steady(stored, meta), *_ending(meta)])


def in_order(moments: Sequence[Timed]) -> list[Timed]:
    """Return the moments by time; of one millisecond by attempt, then in the order of `What`."""
    return sorted(moments, key=_place)


def _place(timed: Timed) -> tuple[int, bool, int, int]:
    moment = timed.moment
    return timed.at_ms, moment.what == "end", moment.attempt, RANK[moment.what]


def _steady(stored: Sequence[Timed], meta: Meta) -> list[Timed]:
    """Return the moments with times that do not go back within an attempt.

    Some times are those of Redis's own writes. The others come from an age, so they are late by the
    duration of the call that wrote them: a first token could seem to come after the end of its
    attempt.

    Args:
        stored: in the order in which each process noted them.
    """
    limits: dict[tuple[str, int], int] = {}
    steady = []
    for timed in reversed(stored):
        moment, at_ms = timed.moment, timed.at_ms
        if moment.what == "attempt_ended" and meta.ended_at_ms:
            at_ms = min(at_ms, meta.ended_at_ms)  # a worker notes it after it wrote the end
        who = moment.worker, moment.attempt
        if moment.worker:
            at_ms = limits[who] = min(at_ms, limits.get(who, at_ms))
        steady.append(Timed(at_ms, moment))
    return steady[::-1]  # equal moments of one millisecond keep their order


def row_of(timed: Timed) -> dict[str, Any]:
    """Return the JSON of a moment: `at` in s since 1970, and its members."""
    return {"at": timed.at_ms / 1000, **msgspec.to_builtins(timed.moment)}


def _beginning(meta: Meta, partition: str) -> list[Timed]:
    accepted = Moment("accepted", node=meta.node, request_id=meta.request_id)
    if meta.is_produced:
        return [Timed(meta.created_at_ms, accepted)]
    queued = Moment("queued", lane=meta.priority, partition=partition)
    return [Timed(meta.created_at_ms, accepted), Timed(meta.created_at_ms, queued)]


def _ending(meta: Meta) -> list[Timed]:
    end = read_end(meta)
    if end is None:
        return []
    code = end.error.code if end.error is not None else ""
    asked = _asked(meta) if end.status == "cancelled" else []
    return [*asked, Timed(meta.ended_at_ms, Moment("end", status=end.status, code=code))]


def _asked(meta: Meta) -> list[Timed]:
    """Return who cancelled a generation. After the end of a grace period nobody has cancelled."""
    by, _, node = (meta.cancelled_by or "no_readers").partition(" ")
    return [Timed(meta.ended_at_ms, Moment("cancel_requested", by=by, node=node))]
