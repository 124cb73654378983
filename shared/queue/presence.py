"""The presence of the workers: what each reports about itself, and when.

One hash for the deployment, which stands beside the partitions of the queue. Every coroutine here
may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from shared.queue.happenings import Happening
from shared.redis import keys
from shared.redis.client import Client, translated

MODELS_MAX = 50


class Presence(msgspec.Struct, frozen=True, omit_defaults=True):
    """The report of a worker about itself, written at each renewal.

    Attributes:
        at_ms: Redis's clock.
        counters: since the worker started; names as in docs/operations.md.
        first_tokens, gaps: histograms of shared/console/histogram.py since the start; of the gaps,
            the longest pause of each answer in each report.
        waits, runs: such histograms by model: how long prompts waited for an attempt, and how long
            attempts took.
        silence_s: how long the most silent running answer has been silent.
        models: the names of the models that this worker serves, `MODELS_MAX` at most.
        batch_slots: of the slots, those that the lane `batch` may have.
        happened, happened_count: as in `Happenings`.
    """

    worker: str
    at_ms: int
    slots: int
    running: int
    draining: bool
    counters: dict[str, float]
    first_tokens: dict[int, int] = {}
    gaps: dict[int, int] = {}
    silence_s: float = 0.0
    models: list[str] = []
    batch_slots: int = 0
    waits: dict[str, dict[int, int]] = {}
    runs: dict[str, dict[int, int]] = {}
    happened: list[Happening] = []
    happened_count: int = 0


_presences = msgspec.json.Decoder(Presence)


async def announce(redis: Client, presence: Presence) -> None:
    """Write the presence of a worker."""
    with translated():
        encoded: Any = msgspec.json.encode(presence)
        await redis.hset(keys.WORKERS, presence.worker, encoded)  # type: ignore[misc]


async def withdraw(redis: Client, worker: str) -> None:
    """Delete the presence of a worker, and its runs that a console shows."""
    with translated():
        await redis.hdel(keys.WORKERS, worker)  # type: ignore[misc]
        await redis.hdel(keys.WORKER_RUNS, worker)  # type: ignore[misc]


async def workers_seen(redis: Client) -> list[Presence]:
    """Return the presence of each worker. The caller judges its age."""
    with translated():
        found: dict[bytes, bytes] = await redis.hgetall(keys.WORKERS)  # type: ignore[misc]
    presences = []
    for raw in found.values():
        with suppress(msgspec.MsgspecError):  # a newer version wrote this one
            presences.append(_presences.decode(raw))
    return presences
