"""A client without a network that sends frames to a WebSocket endpoint and takes its frames."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from api.edge.auth import Authenticator
from api.node import Node
from api.readers.socket_endpoint import SocketEndpoint
from shared.errors import RequestError
from shared.log.ids import new_generation_id
from shared.queue.accept import Accepted, NewGeneration
from tests.support.hub_harness import Client, HubHarness, settle

ANYBODY = Authenticator({}, ())


def steady_store() -> Any:
    """Return a store for `Acceptance`, whose connection is never lost."""
    return SimpleNamespace(scripts=SimpleNamespace(pipeline=SimpleNamespace(losses=0)))


class KeyedAcceptor:
    """Accepts prompts on the harness; the same key finds the same generation, as the real one."""

    def __init__(self, hub_harness: HubHarness) -> None:
        self.hub_harness = hub_harness
        self.store = steady_store()
        self.error: Exception | None = None
        self.seen: list[NewGeneration] = []
        self.known: dict[tuple[str, str], tuple[str, str]] = {}

    def draw_id(self) -> str:
        return new_generation_id()

    async def accept(self, new: NewGeneration, generation_id: str = "") -> Accepted:
        if self.error is not None:
            raise self.error
        self.seen.append(new)
        name = (new.owner, new.idempotency_key)
        if new.idempotency_key and name in self.known:
            generation_id, digest = self.known[name]
            if digest != new.body_digest:
                raise RequestError(422, "idempotency_mismatch", "another request had this key")
            return Accepted(generation_id, False, 1, "queued")
        generation_id = f"gen_{len(self.hub_harness.log.known):010}"
        self.known[name] = (generation_id, new.body_digest)
        self.hub_harness.log.create(
            generation_id, owner=new.owner, grace_s=new.grace_s, status="queued"
        )
        return Accepted(generation_id, True, 1, "queued")

    async def find(self, owner: str, idempotency_key: str) -> str | None:
        if self.error is not None:
            raise self.error
        return self.known.get((owner, idempotency_key), (None, ""))[0]


class FrameClient:
    """Sends frames to an application of a socket, and takes its frames.

    Attributes:
        client: the other side of the socket.
        task: the application.
    """

    client: Client
    task: asyncio.Future[None]

    async def say(self, frame: Any) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame)
        self.client.incoming.put_nowait({"type": "websocket.receive", "text": text})
        await settle()

    async def say_bytes(self, data: bytes) -> None:
        self.client.incoming.put_nowait({"type": "websocket.receive", "bytes": data})
        await settle()

    def take(self) -> list[dict[str, Any]]:
        """Return the frames since the last call."""
        frames = [json.loads(m["text"]) for m in self.client.messages if "text" in m]
        self.client.messages = [m for m in self.client.messages if "text" not in m]
        return frames

    @property
    def close_code(self) -> int | None:
        codes = [m["code"] for m in self.client.messages if m["type"] == "websocket.close"]
        assert len(codes) <= 1
        return codes[0] if codes else None

    async def leave(self) -> None:
        if not self.task.done():
            self.client.leave("websocket")
            await self.task


class SocketClient(FrameClient):
    """One socket under way; `endpoint` is its application."""

    def __init__(
        self,
        endpoint: SocketEndpoint,
        *,
        query: str = "",
        subprotocols: Sequence[str] = (),
        **headers: str,
    ) -> None:
        self.client = Client({"type": "websocket.connect"})
        self.endpoint = endpoint
        scope = {
            "type": "websocket",
            "path": endpoint.path,
            "query_string": query.encode(),
            "headers": [
                (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
            ],
            "client": ("127.0.0.1", 1),
            "subprotocols": list(subprotocols),
            "extensions": {"tailrace.transport": self.client},
        }
        self.task = asyncio.create_task(
            endpoint(scope, self.client.receive, self.client.send)  # type: ignore[arg-type]
        )


class SocketHarness:
    """The hub harness with an acceptor and its open sockets; closes the sockets at the end.

    Args:
        endpoint_of: makes the application of a dialect's socket on a node.
    """

    def __init__(
        self, hub_harness: HubHarness, endpoint_of: Callable[[Node], SocketEndpoint]
    ) -> None:
        self.hub_harness = hub_harness
        self.log = hub_harness.log
        self.acceptor = KeyedAcceptor(hub_harness)
        self.talks: list[SocketClient] = []
        self.cancelled: list[str] = []
        self.log.cancel = self._cancel  # type: ignore[attr-defined]
        self._endpoint_of = endpoint_of

    async def _cancel(self, generation_id: str) -> None:
        self.cancelled.append(generation_id)

    async def socket_client(self, *, query: str = "", **parts: Any) -> SocketClient:
        """Open a socket on a node of its own; `parts` replace those of the node."""
        node = self.hub_harness.node(acceptor=self.acceptor, **parts)
        self.talks.append(SocketClient(self._endpoint_of(node), query=query))
        await settle()
        return self.talks[-1]

    async def leave(self) -> None:
        for socket_client in self.talks:
            await socket_client.leave()
