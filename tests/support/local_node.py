"""A whole API node in this process, on a loopback port, against a real Redis; and a worker by hand.

For tests that need real sockets and the hub's inside at once. Roles as processes: processes.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from api.edge.auth import Authenticator
from api.edge.metrics import Metrics
from api.hub.hub import Hub
from api.node import Node
from api.server import Server, configuration
from shared.config.models import load_models
from shared.config.settings import Settings
from shared.files.store import FileStore
from shared.log.events import End, Event, encode
from shared.log.ids import new_generation_id
from shared.log.records import Append, Begun, Ok
from shared.log.store import Store
from shared.queue.accept import Acceptor
from shared.redis.connections import connect
from tests.support.wait import until


class LocalNode:
    """One node that listens."""

    def __init__(self, node: Node, port: int) -> None:
        self.node = node
        self.hub = node.hub
        self.port = port
        self.url = f"http://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def serve_here(settings: Settings, name: str = "n1") -> AsyncIterator[LocalNode]:
    """Run a node until the block ends."""
    redis = connect(settings)
    store = Store(redis, settings)
    listener = socket.create_server(("127.0.0.1", 0))
    async with contextlib.aclosing(redis), Hub(store, settings, node=name) as hub:
        node = Node(
            name=name,
            settings=settings,
            models=load_models(settings.models),
            redis=redis,
            store=store,
            acceptor=Acceptor(redis, store, settings),
            files=FileStore(redis, settings),
            hub=hub,
            authenticator=Authenticator.from_settings(settings),
            metrics=Metrics(),
            started_at=0,
        )
        server = Server(configuration(node, 1.0))
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve([listener]))
            await server.is_listening.wait()
            await until(lambda: hub.is_live, 10, "the live connection")
            try:
                yield LocalNode(node, listener.getsockname()[1])
            finally:
                node.is_draining = True
                await hub.drain(0)
                server.stop()
                await serving
    listener.close()


class ManualWorker:
    """A worker's pen: one generation, begun and appended to when the test says so."""

    def __init__(self, store: Store, generation_id: str, begun: Begun, token: str) -> None:
        self.store = store
        self.generation_id = generation_id
        self.token = token
        self.attempt, self.seq = begun.start[0]

    @classmethod
    async def take(cls, store: Store, *, token: str = "t1", **fields: Any) -> ManualWorker:
        """Create a generation and begin it."""
        generation_id = new_generation_id()
        known = {
            "owner": "anonymous", "session": "", "model": "demo", "priority": "interactive",
            "metadata": b"{}", "request": b'{"messages":[]}', **fields,
        }  # fmt: skip
        await store.create(generation_id, known, may_be_lost=False)
        begun = await store.begin(generation_id, token, "w1")
        assert isinstance(begun, Begun)
        return cls(store, generation_id, begun, token)

    async def append(self, *events: Event) -> None:
        status = events[-1].status if isinstance(events[-1], End) else None
        batch = Append(
            self.generation_id, self.token, self.attempt, self.seq,
            [encode(event) for event in events], status,
        )  # fmt: skip
        assert await self.store.append_many([batch]) == [Ok()]
        self.seq += len(events)


async def post_json(
    web: aiohttp.ClientSession, path: str, body: Any, **headers: str
) -> tuple[int, dict[str, Any]]:
    """Send JSON to a node; return the status and the JSON of the answer."""
    async with web.post(path, json=body, headers=headers) as response:
        return response.status, await response.json()
