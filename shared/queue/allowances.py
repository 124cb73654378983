"""Asks the record of an owner's limits whether a prompt may be accepted.

shared/queue/allowance.py describes the record. This module sends the calls, in one of two ways. As
long as an owner has at least half of each limit left, the count is in the same round trip as the
calls that create the generation. If Redis then refuses the count, the generation is taken back:
it is sealed, and a worker that has begun it stops. Near a limit, and for more than
`RIDING_MAX` prompts at once, the record is asked before anything is created.

If an owner has too many unfinished generations, this module also checks whether the generations
that have been counted for the longest time exist: a node may have died between the count and the
creation, and Redis may have lost a generation.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from shared.config.limits import OwnerLimits
from shared.errors import RequestError, Unavailable
from shared.log.store import Store
from shared.queue.allowance import (
    ADMIT,
    SETTLE,
    Allowance,
    OverLimit,
    admission,
    read,
    settlement,
    tokens_of,
    withdrawal,
)
from shared.queue.leaving import forget
from shared.redis import keys
from shared.redis.client import Command
from shared.redis.pipeline import Call

OWNERS_MAX = 10_000  # whose allowance a process remembers
ALLOWANCE_KNOWN_S = 30.0  # an older allowance counts as unknown
RIDING_MAX = 8  # prompts of one owner whose counts may be refused after their creation


class Prompt(Protocol):
    """The members of a prompt that a count needs (shared/queue/accept.py)."""

    @property
    def owner(self) -> str: ...

    @property
    def tokens(self) -> int: ...

    @property
    def limits(self) -> OwnerLimits: ...


@dataclass(slots=True)
class _OwnerState:
    allowance: Allowance | None = None
    heard_at_s: float = 0.0
    riding: int = 0  # prompts of this process that are counted while they are created

    def may_ride(self, limits: OwnerLimits, now_s: float) -> bool:
        """Whether the count of one more prompt may go with its creation."""
        known = self.allowance
        if known is None or known.limits != limits or now_s - self.heard_at_s > ALLOWANCE_KNOWN_S:
            return self.riding == 0
        return self.riding < RIDING_MAX and known.has_half(self.riding + 1)


class Count:
    """The count of one prompt.

    Attributes:
        left: the rest of the owner's limits; None: no limits, or not known yet.
        riding: the call to send with the calls that create the generation; None: nothing to send.
    """

    __slots__ = ("_allowances", "_prompt", "left", "riding")

    def __init__(self, allowances: Allowances, prompt: Prompt) -> None:
        self._allowances = allowances
        self._prompt = prompt
        self.left: Allowance | None = None
        self.riding: tuple[str, Call] | None = None

    def hear(self, reply: Sequence[Any]) -> None:
        """Take the reply to `riding`.

        Raises:
            OverLimit: refused; `Allowances.admit` then takes the generation back.
        """
        self.left = self._allowances.hear(self._prompt, reply)


class Allowances:
    """Counts new prompts against the limits of their owners, on one Redis."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._states: OrderedDict[str, _OwnerState] = OrderedDict()

    @asynccontextmanager
    async def admit(
        self, generation_id: str, new: Prompt, *, may_ride: bool = False
    ) -> AsyncIterator[Count]:
        """Count a prompt, and take the count back if the prompt is refused inside.

        After `Unavailable` inside, the prompt may have been accepted, so the count stays.

        Args:
            may_ride: the caller sends `Count.riding` and calls `Count.hear`.

        Raises:
            OverLimit: the prompt would exceed a limit.
            Unavailable: Redis did not answer in time.
        """
        count = Count(self, new)
        if not new.limits.has_prompt_limit:
            yield count
            return
        state = self._state(new.owner)
        if may_ride and state.may_ride(new.limits, self._now_s()):
            count.riding = ADMIT, self._call(generation_id, new)
            async with self._riding(state, generation_id):
                yield count
            return
        count.left = await self._ask(generation_id, new)
        try:
            yield count
        except RequestError:
            with contextlib.suppress(Unavailable):
                call = withdrawal(new.owner, generation_id)
                await self._store.scripts.run(SETTLE, *call)
            raise

    def hear(self, new: Prompt, reply: Sequence[Any]) -> Allowance:
        """Read a reply, and remember it.

        Raises:
            OverLimit: the prompt was refused.
        """
        state = self._state(new.owner)
        state.heard_at_s = self._now_s()
        try:
            state.allowance = read(reply, new.limits)
        except OverLimit as exc:
            state.allowance = exc.allowance
            raise
        return state.allowance

    @asynccontextmanager
    async def _riding(self, state: _OwnerState, generation_id: str) -> AsyncIterator[None]:
        state.riding += 1
        try:
            yield
        except OverLimit:
            await self._take_back(generation_id)
            raise
        finally:
            state.riding -= 1

    async def _take_back(self, generation_id: str) -> None:
        """Remove a generation that was created, and refused at the same time."""
        await self._store.delete(generation_id)
        await self._store.publish(keys.CANCEL, generation_id.encode())
        await forget(self._store, generation_id)

    async def _ask(self, generation_id: str, new: Prompt) -> Allowance:
        call = self._call(generation_id, new)
        try:
            return self.hear(new, await self._store.scripts.run(ADMIT, *call))
        except OverLimit as exc:
            if not await self._settle_ended(new.owner, exc.active):
                raise
        return self.hear(new, await self._store.scripts.run(ADMIT, *call))

    def _call(self, generation_id: str, new: Prompt) -> Call:
        return admission(new.owner, generation_id, new.tokens, new.limits, self._store.settings)

    async def _settle_ended(self, owner: str, ids: Sequence[str]) -> bool:
        """Settle those of the counted generations that have ended or do not exist."""
        if not ids:
            return False
        commands: list[Command] = [
            ("HMGET", keys.meta(name), "status", "end", "spent") for name in ids
        ]
        replies = await self._store.scripts.pipeline.run(commands)
        calls = [
            (SETTLE, settlement(owner, name, tokens_of(reply[1], reply[2])))
            for name, reply in zip(ids, replies, strict=True)
            if not isinstance(reply, Exception) and reply[0] not in (b"queued", b"running")
        ]
        await self._store.scripts.run_all(calls)
        return bool(calls)

    def _state(self, owner: str) -> _OwnerState:
        state = self._states.setdefault(owner, _OwnerState())
        self._states.move_to_end(owner)
        while len(self._states) > OWNERS_MAX:
            self._states.popitem(last=False)
        return state

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
