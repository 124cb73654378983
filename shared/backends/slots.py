"""The slots of a backend: how many generations all workers together let it answer at a time.

A generation that finds no free slot waits in the line of the backend, with its queue entry. The
script shared/redis/scripts/slots.lua grants each free slot to the first of the line, and returns
its entry: the caller puts the entry on the lane `resume`. A granted slot that no worker takes in
`GRANT_MS` is granted anew, so an entry that was lost on the way costs only this time.

In the line, prompts go before lines of batches, answers that have begun before new ones, and the
owners of one class take turns by their weights. Prompts never starve the lines of batches: one of
`BATCH_TURNS` slots goes to a line while one waits. A held slot is a lease: the slots of a worker
that died come back after `lease_ms`.

Every coroutine here may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from shared.redis import backend_keys
from shared.redis.client import Client, clock_ms, translated
from shared.redis.scripts import Scripts

GRANT_MS = 10_000
BATCH_TURNS = 8  # as in the script
SLOTTED_MS = 30_000  # a backend that no worker has named for so long has no slots any more


@dataclass(frozen=True, slots=True)
class Waiter:
    """A generation that wants a slot.

    Attributes:
        entry: its queue entry, JSON; empty: it does not wait.
        has_begun: it comes from the lane `resume`.
        owner: digest; empty: no owner, these take their turns as one.
        weight: turns of the owner beside one turn of the others.
    """

    id: str
    entry: bytes = b""
    is_batch: bool = False
    has_begun: bool = False
    owner: str = ""
    weight: int = 1

    @property
    def place(self) -> int:
        """The class in the line; a lower one goes first."""
        return 2 * self.is_batch + (not self.has_begun)


@dataclass(frozen=True, slots=True)
class Granted:
    """The answer of one call.

    Attributes:
        has_slot: the waiter of the call has a slot.
        entries: of other generations that were granted a slot, JSON: put them on `resume`.
    """

    has_slot: bool
    entries: Sequence[bytes]


NO_WAITER = Waiter("")


class BackendSlots:
    """The slots of one backend.

    Args:
        number: of slots.
        lease_ms: a held slot is free again if it is not kept for this time.
    """

    def __init__(self, scripts: Scripts, backend: str, number: int, lease_ms: int) -> None:
        self.backend = backend
        self.number = number
        self._scripts = scripts
        self._lease_ms = lease_ms

    async def call(
        self,
        waiter: Waiter = NO_WAITER,
        *,
        released: Sequence[str] = (),
        kept: Sequence[str] = (),
    ) -> Granted:
        """Give slots back, keep some, take one for `waiter` or let it wait; grant the free ones."""
        args: list[Any] = [
            self.number, self._lease_ms, GRANT_MS, waiter.id, waiter.entry, waiter.place,
            waiter.owner, waiter.weight, len(released), *released, *kept,
        ]  # fmt: skip
        reply = await self._scripts.run("slots", backend_keys.slots(self.backend), args)
        return Granted(bool(reply[0]), reply[1:])


async def announce_slotted(redis: Client, backends: Sequence[str], now_ms: int) -> None:
    """Note that these backends have slots, for `waiting_in_line`."""
    with translated():
        mapping: Any = dict.fromkeys(backends, now_ms)
        await redis.hset(backend_keys.SLOTTED, mapping=mapping)  # type: ignore[misc]


async def slotted(redis: Client) -> list[str]:
    """Return the backends for which a living worker keeps slots."""
    with translated():
        found: dict[bytes, bytes] = await redis.hgetall(backend_keys.SLOTTED)  # type: ignore[misc]
    if not found:
        return []
    now_ms = await clock_ms(redis)
    return [name.decode() for name, at_ms in found.items() if int(at_ms) > now_ms - SLOTTED_MS]


async def waiting_in_line(redis: Client, ids: Sequence[str]) -> set[str]:
    """Return the ids that wait for a slot. The caller must not treat them as lost."""
    backends = await slotted(redis) if ids else []
    if not backends:
        return set()
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for backend in backends:
            for name in ids:
                pipeline.zscore(backend_keys.slots(backend)[1], name)
        scores = await pipeline.execute()
    return {name for name, score in zip(cycle(ids), scores, strict=False) if score is not None}


async def leave_backends(redis: Client, ids: Sequence[str]) -> None:
    """Take generations that have ended out of the lines of all backends.

    A slot that one of them was granted meanwhile comes back by its entry, or after `GRANT_MS`.
    """
    if backends := await slotted(redis) if ids else []:
        with translated():
            pipeline = redis.pipeline(transaction=False)
            for backend in backends:
                _, line, entries, _ = backend_keys.slots(backend)
                pipeline.zrem(line, *ids)
                pipeline.hdel(entries, *ids)
            await pipeline.execute()


async def slots_in_use(redis: Client, backends: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the held slots and the waiting generations of each backend."""
    if not backends:
        return {}
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for backend in backends:
            held, line, _, _ = backend_keys.slots(backend)
            pipeline.zcard(held)
            pipeline.zcard(line)
        numbers = await pipeline.execute()
    return {
        name: (held, line)
        for name, held, line in zip(backends, numbers[::2], numbers[1::2], strict=True)
    }
