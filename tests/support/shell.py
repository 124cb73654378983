"""An API node's application on a fake Redis, called without sockets; two owners and an operator."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import fakeredis
import httpx2
import msgspec

from api.app import create_app
from api.edge.auth import Authenticator
from api.edge.metrics import Metrics
from api.node import Node
from shared.config.models import Model
from shared.config.settings import Settings
from shared.files.store import FileStore
from shared.log.store import Store
from shared.queue.accept import Acceptor
from shared.queue.presence import Presence
from shared.redis import keys

ALICE = {"authorization": "Bearer alpha"}
BOB = {"authorization": "Bearer beta"}
OPERATOR = {"authorization": "Bearer omega"}


class StandInHub:
    """A hub that nobody reads from."""

    is_live = True
    is_draining = False

    def __init__(self, store: Store) -> None:
        self.look_up_meta = store.meta

    def find_held_meta(self, generation_id: str) -> None:
        return None

    find_unfinished_meta = find_held_meta

    def spawn(self, errand: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(errand)


class Shell:
    """The application of a node with a fake Redis; answers requests without sockets."""

    def __init__(self, **changes: Any) -> None:
        self.server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeAsyncRedis(server=self.server)
        self.settings = Settings(**{"api_keys": "alpha:alice,beta:bob,omega:olga:admin", **changes})
        self.store = Store(self.redis, self.settings)
        self.hub = StandInHub(self.store)
        hub: Any = self.hub
        self.node = Node(
            name="n1",
            settings=self.settings,
            models={"demo": Model(name="demo", backend="demo"), "other": Model(name="other")},
            redis=self.redis,
            store=self.store,
            acceptor=Acceptor(self.redis, self.store, self.settings),
            files=FileStore(self.redis, self.settings),
            hub=hub,
            authenticator=Authenticator.from_settings(self.settings),
            metrics=Metrics(),
            started_at=1_700_000_000,
        )
        self.app = create_app(self.node)
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.app), base_url="http://localhost"
        )

    async def post(self, body: Any = None, **headers: str) -> httpx2.Response:
        sent = {**ALICE, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return await self.client.post(
            "/v1/generations", json={"prompt": "Hi"} if body is None else body, headers=sent
        )

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.client.get(path, headers=headers or ALICE)

    async def announce(self, *, age_ms: int = 0, is_draining: bool = False) -> None:
        seconds, microseconds = await self.redis.time()
        at_ms = seconds * 1000 + microseconds // 1000 - age_ms
        presence = Presence("w1", at_ms, 100, 7, is_draining, {"generations": 3.0})
        await self.redis.hset(keys.WORKERS, "w1", msgspec.json.encode(presence))
