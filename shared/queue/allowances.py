"""Asks the record of an owner's limits before a prompt is accepted.

What the record counts is in shared/queue/allowance.py. This module moves the calls. If an owner has
too many unfinished generations, it also looks whether the longest counted ones really exist: a node
may have died between the count and the creation, and Redis may have lost a generation.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

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
from shared.redis import keys
from shared.redis.client import Command


class Counted(Protocol):
    """What a count needs of a prompt (shared/queue/accept.py)."""

    @property
    def owner(self) -> str: ...

    @property
    def tokens(self) -> int: ...

    @property
    def limits(self) -> OwnerLimits: ...


class Allowances:
    """Counts new prompts against the limits of their owners, on one Redis."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @asynccontextmanager
    async def admit(self, generation_id: str, new: Counted) -> AsyncIterator[Allowance | None]:
        """Count a prompt, and take the count back if the prompt is refused inside.

        After `Unavailable` inside, the prompt may have been accepted, so the count stays.

        Yields:
            what the owner has left; None: the owner has no limits, and Redis was not asked.

        Raises:
            OverLimit: the prompt would exceed a limit.
            Unavailable: Redis did not answer in time.
        """
        if not new.limits.has_prompt_limit:
            yield None
            return
        left = await self._count(generation_id, new)
        try:
            yield left
        except RequestError:
            with contextlib.suppress(Unavailable):
                call = withdrawal(new.owner, generation_id)
                await self._store.scripts.run(SETTLE, *call)
            raise

    async def _count(self, generation_id: str, new: Counted) -> Allowance:
        scripts = self._store.scripts
        call = admission(new.owner, generation_id, new.tokens, new.limits, self._store.settings)
        try:
            return read(await scripts.run(ADMIT, *call), new.limits)
        except OverLimit as exc:
            if not await self._settle_ended(new.owner, exc.active):
                raise
        return read(await scripts.run(ADMIT, *call), new.limits)

    async def _settle_ended(self, owner: str, ids: Sequence[str]) -> bool:
        """Settle those of the counted generations that have ended or do not exist."""
        if not ids:
            return False
        commands: list[Command] = [("HMGET", keys.meta(name), "status", "end") for name in ids]
        replies = await self._store.scripts.pipeline.run(commands)
        calls = [
            (SETTLE, settlement(owner, name, tokens_of(reply[1])))
            for name, reply in zip(ids, replies, strict=True)
            if not isinstance(reply, Exception) and reply[0] not in (b"queued", b"running")
        ]
        await self._store.scripts.run_all(calls)
        return bool(calls)
