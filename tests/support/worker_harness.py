"""Workers in this process on a real server, with backends that follow the script of a test.

    async with WorkerHarness(url, script) as harness:
        worker = await harness.start("one")
        generation_id = await harness.ask()

A script is an async generator function of (prefix). Each attempt follows the next script; after the
last script, each attempt follows the last one again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from redis.asyncio import Redis

from shared.config.models import Model
from shared.config.settings import Settings
from shared.config.stages import parse_stages
from shared.log.events import decode
from shared.log.ids import START
from shared.log.records import Meta
from shared.log.request import Request
from shared.log.store import Store
from shared.metrics.answers import NO_METRICS
from shared.queue.accept import Acceptor, NewGeneration
from shared.redis.connections import connect
from tests.support.wait import until
from workers.backends.contract import BackendItem
from workers.worker import Worker

BackendScript = Callable[[str], AsyncGenerator[list[BackendItem], None]]
DEADLINE_S = 10.0


class ScriptedBackend:
    """Plays, and remembers how it was called."""

    counts_whole = False

    def __init__(self, *backend_scripts: BackendScript, can_continue: bool = True) -> None:
        self.backend_scripts = backend_scripts
        self.can_continue = can_continue
        self.prefixes: list[str] = []  # of each attempt
        self.seeds: list[str] = []
        self.forms: list[str] = []
        self.requests: list[Request] = []
        self.lists = 0  # that the worker has taken
        self.open = 0
        self.open_most = 0

    async def stream(
        self, request: Request, *, prefix: str, seed: str, form: str
    ) -> AsyncGenerator[list[BackendItem], None]:
        backend_script = self.backend_scripts[
            min(len(self.prefixes), len(self.backend_scripts) - 1)
        ]
        self.prefixes.append(prefix)
        self.seeds.append(seed)
        self.forms.append(form)
        self.requests.append(request)
        self.open += 1
        self.open_most = max(self.open_most, self.open)
        try:
            async for items in backend_script(prefix):
                self.lists += 1
                yield items
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        """Nothing is held."""


class WorkerHarness:
    """A server's URL, backends by model, and the workers that were started.

    Attributes:
        queue_partitions: of every harness that is given no other number.
    """

    queue_partitions = 1

    def __init__(
        self,
        url: str,
        *backend_scripts: BackendScript,
        on_takeover: str = "continue",
        stages: Sequence[dict[str, Any]] = (),
        **settings: Any,
    ):
        given = {"lease_s": 0.6, "queue_partitions": self.queue_partitions} | settings
        self.settings = Settings(redis_url=url, **given)
        tables = parse_stages(list(stages), "models.m.stages", Path())
        self.models = {"m": Model(name="m", on_takeover=on_takeover, stages=tables)}
        self.backend = ScriptedBackend(*backend_scripts, can_continue=self.models["m"].may_continue)
        self.backends = {"m": self.backend}
        self.redis: Redis = connect(self.settings)
        self.store = Store(self.redis, self.settings)
        self.acceptor = Acceptor(self.redis, self.store, self.settings)
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()
        self._clients = AsyncExitStack()

    async def __aenter__(self) -> WorkerHarness:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self.tasks.values():
            task.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        finally:
            await self._clients.aclose()
            await self.redis.aclose()

    def worker(self, name: str, **changes: Any) -> Worker:
        """A worker that has not been started."""
        redis = connect(self.settings)
        self._clients.push_async_callback(redis.aclose)
        worker = Worker(
            redis,
            self.settings,
            name=name,
            models=changes.get("models", self.models),
            backends=changes.get("backends", self.backends),
            metrics=changes.get("metrics", NO_METRICS),
        )
        self._clients.push_async_callback(worker.aclose)
        return worker

    async def start(self, name: str = "one", **changes: Any) -> Worker:
        worker = self.worker(name, **changes)
        ready = asyncio.Event()
        self.tasks[name] = self._group.create_task(worker.serve(ready))
        async with asyncio.timeout(DEADLINE_S):
            await ready.wait()
        return worker

    async def kill(self, name: str = "one") -> None:
        """Cancel a worker's task. As after SIGKILL, the worker sends nothing more to Redis."""
        task = self.tasks.pop(name)
        task.cancel()
        await asyncio.wait([task])

    async def drained(self, name: str = "one") -> None:
        """Wait until a worker that was told to drain has returned."""
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([self.tasks[name]])
        self.tasks.pop(name).result()

    def new(self, **changes: Any) -> NewGeneration:
        given = {"owner": "alice", "model": "m", "request": b'{"messages":[]}'} | changes
        return NewGeneration(**given)

    async def ask(self, **changes: Any) -> str:
        return (await self.acceptor.accept(self.new(**changes))).generation_id

    async def events(self, generation_id: str) -> list[Any]:
        return [decode(raw) for _, raw in await self.store.page(generation_id, START, 100_000)]

    async def said(self, generation_id: str) -> list[str]:
        """The log, with texts for tokens and types for the rest."""
        events = await self.events(generation_id)
        return [getattr(event, "text", type(event).__name__.lower()) for event in events]

    async def text(self, generation_id: str) -> str:
        """The answer: the texts since the last reset."""
        text = ""
        for event in await self.events(generation_id):
            kind = type(event).__name__
            text = "" if kind == "Reset" else text + (event.text if kind == "Token" else "")
        return text

    async def has_said(self, generation_id: str, text: str) -> None:
        async def has() -> bool:
            return await self.text(generation_id) == text

        await until(has, DEADLINE_S, f"{text!r} in the log")

    async def ended(self, generation_id: str) -> Meta:
        async def end() -> Meta | None:
            meta = await self.store.meta(generation_id)
            return meta if meta is not None and meta.is_ended else None

        meta = await until(end, DEADLINE_S, f"{generation_id} ends")
        assert meta is not None
        return meta
