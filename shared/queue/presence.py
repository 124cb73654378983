"""The presence of the workers: what each reports about itself, and when.

One hash for the deployment, which stands beside the partitions of the queue. Every coroutine here
may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from shared.redis import keys
from shared.redis.client import Client, translated


class Presence(msgspec.Struct, frozen=True):
    """The report of a worker about itself, written at each renewal."""

    worker: str
    at_ms: int  # Redis's clock
    slots: int
    running: int
    draining: bool
    counters: dict[str, float]  # since the worker started; names as in docs/operations.md
    first_tokens: dict[int, int] = {}  # histograms of shared/console/histogram.py, since the start:
    gaps: dict[int, int] = {}  # the longest pause of each answer in each report
    silence_s: float = 0.0  # how long the most silent running answer has been silent


_presences = msgspec.json.Decoder(Presence)


async def announce(redis: Client, presence: Presence) -> None:
    """Write the presence of a worker."""
    with translated():
        encoded: Any = msgspec.json.encode(presence)
        await redis.hset(keys.WORKERS, presence.worker, encoded)  # type: ignore[misc]


async def withdraw(redis: Client, worker: str) -> None:
    """Delete the presence of a worker, and its runs that a console shows."""
    with translated():
        pipeline = redis.pipeline(transaction=False)
        pipeline.hdel(keys.WORKERS, worker)
        pipeline.hdel(keys.WORKER_RUNS, worker)
        await pipeline.execute()


async def workers_seen(redis: Client) -> list[Presence]:
    """Return the presence of each worker. The caller judges its age."""
    with translated():
        found: dict[bytes, bytes] = await redis.hgetall(keys.WORKERS)  # type: ignore[misc]
    presences = []
    for raw in found.values():
        with suppress(msgspec.MsgspecError):  # a newer version wrote this one
            presences.append(_presences.decode(raw))
    return presences
