"""A worker that fails where its prompt says so: `python -m tests.support.faulty_worker worker`.

    block             the event loop of the whole process stands still once, beyond any lease here
    poison            the process dies with the third token, whoever runs it
    die before begin  the queue entry is taken, and nothing else has happened
    die after begin   `start` stands
    die at token 17   seventeen tokens stand
    die before the end   all of the text stands
    die after the end    the end stands; the queue entry has not been acknowledged

A death is SIGKILL, and but for `poison` it meets a generation once, whoever comes first. Everything
else is the real worker: the product has no hooks.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

import workers.worker
from shared.config.models import Model
from shared.config.settings import Settings
from shared.log.events import Token
from shared.log.records import Absent, Append, Begun, Ended, Held, Writing
from shared.log.request import Request
from shared.log.store import Store
from workers import main as role
from workers.backends.contract import BackendItem
from workers.backends.demo.backend import DemoBackend

BLOCK_AT = 10  # tokens
BLOCK_S = 2.5  # some three leases
POISON_AT = 3
CRASH_AT = 17
DEATHS = (
    "die before begin",
    "die after begin",
    "die at token 17",
    "die before the end",
    "die after the end",
)


class FaultyBackend(DemoBackend):
    """The demo model, with a fault."""

    async def stream(
        self, request: Request, *, prefix: str, seed: str, form: str = ""
    ) -> AsyncGenerator[list[BackendItem], None]:
        seen, prompt = 0, str(request.messages)
        has_blocked = "block" not in prompt
        async for items in super().stream(request, prefix=prefix, seed=seed):
            yield items
            seen += sum(isinstance(item, Token) for item in items)
            if "poison" in prompt and seen >= POISON_AT:
                die()
            if seen >= BLOCK_AT and not has_blocked:
                has_blocked = True
                time.sleep(BLOCK_S)  # noqa: ASYNC251  the fault itself


class DyingStore(Store):
    """The store of a process that dies between two calls, or between a call and its answer."""

    deaths: dict[str, str] = {}  # by generation; empty: none

    async def begin(
        self, generation_id: str, token: str, worker: str, **kwargs: Any
    ) -> Begun | Held | Ended | Absent:
        meta = await self.meta(generation_id)
        if meta is None:  # the node is still creating it, and its prompt is not known yet
            return Absent()
        death = next((name for name in DEATHS if name in meta.prompt), "")
        self.deaths[generation_id] = death
        if death == "die before begin":
            await self._die_once(generation_id)
        outcome = await super().begin(generation_id, token, worker, **kwargs)
        if death == "die after begin" and isinstance(outcome, Begun):
            await self._die_once(generation_id)
        return outcome

    async def append_many(self, batches: Sequence[Append]) -> list[Writing | Any]:
        for batch in batches:
            last_words = self._last_words(batch)
            if last_words is not None and await self._is_first_to_die(batch.generation_id):
                if last_words.entries:
                    await super().append_many([last_words])
                die()
        return await super().append_many(batches)

    def _last_words(self, batch: Append) -> Append | None:
        """What is still written of this batch before the process dies; None: it does not."""
        death = self.deaths.get(batch.generation_id, "")
        if death == "die after the end" and batch.status is not None:
            return batch
        if death == "die before the end" and batch.status is not None:
            return replace(batch, entries=batch.entries[:-1], status=None)
        # Token n of a first attempt has the seq n + 1, after `start`.
        left = CRASH_AT + 1 - batch.before_seq
        if death == "die at token 17" and 0 < left <= len(batch.entries):
            return replace(batch, entries=batch.entries[:left], status=None)
        return None

    async def _die_once(self, generation_id: str) -> None:
        if await self._is_first_to_die(generation_id):
            die()

    async def _is_first_to_die(self, generation_id: str) -> bool:
        return bool(await self.redis.set(f"odd:{generation_id}", "died", nx=True))


def die() -> None:
    """As `kill -9` from outside: nothing is flushed, no connection is closed in an orderly way."""
    os.kill(os.getpid(), signal.SIGKILL)


def build(
    models: Mapping[str, Model], settings: Settings, environ: Mapping[str, str], http: object
) -> dict[str, Any]:
    return {name: FaultyBackend(model) for name, model in models.items()}


if __name__ == "__main__":
    role.build_backends = build  # type: ignore[assignment]
    workers.worker.Store = DyingStore  # type: ignore[misc]
    sys.exit(role.serve(Settings.from_env()))
