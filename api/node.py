"""What the handlers of one API node share: the parts, and whether it is draining.

Holds references and no logic beyond the checks that several handlers begin with.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Authenticator
from api.errors import Shape, draining, error_headers
from api.hub.hub import Hub
from api.metrics import Metrics
from api.peer import Peers
from api.slowing import Slowing
from api.turns import DOWNLOADS_AT_ONCE, UPLOADS_AT_ONCE, Turns
from shared.accept import Accepted, Acceptor, NewGeneration, queued_meta
from shared.errors import NotFound, RequestError, Unavailable
from shared.files import FileStore
from shared.ids import is_generation_id, new_generation_id
from shared.models import Model
from shared.outcomes import Meta
from shared.redis_client import Client
from shared.settings import Settings
from shared.store import Store

ANSWER_S = 4.0  # a request that only asks Redis is answered by then; 5 s are promised


@dataclass(slots=True)
class Node:
    """One API node."""

    name: str
    settings: Settings
    models: Mapping[str, Model]
    redis: Client
    store: Store
    acceptor: Acceptor
    files: FileStore
    hub: Hub
    authenticator: Authenticator
    metrics: Metrics
    started_at: int  # Unix seconds
    uploads: Turns = field(default_factory=lambda: Turns(UPLOADS_AT_ONCE))
    downloads: Turns = field(default_factory=lambda: Turns(DOWNLOADS_AT_ONCE))
    is_draining: bool = False
    peers: Peers = field(init=False)
    slowing: Slowing = field(init=False)

    def __post_init__(self) -> None:
        """Raises ConfigurationError: the trusted proxies cannot be read."""
        self.peers = Peers.read(self.settings.trusted_proxies)
        self.slowing = Slowing(self.peers)

    def owner(self, request: Request) -> str:
        """Return who asks.

        Raises:
            RequestError: 401.
        """
        return self.authenticator.owner(request.headers, request.query_params)

    def refuse_while_draining(self) -> None:
        if self.is_draining:
            raise draining()

    async def accept(self, new: NewGeneration, *, is_read: bool = False) -> Accepted:
        """Accept a prompt, and count it.

        Args:
            is_read: its log is read here at once. The hub listens to a fresh one before it has a
                log, so that no page stands between its first entry and the reader.

        Raises:
            RequestError, Unavailable: as `Acceptor.accept`.
        """
        generation_id = new_generation_id()
        expecting: asyncio.Handle | None = None
        if is_read and not new.idempotency_key:
            # Soon: what creates it leaves first.
            meta = queued_meta(generation_id, new, 0)
            expecting = asyncio.get_running_loop().call_soon(self.hub.expect, meta)
        try:
            with self.metrics.accept_seconds.time():
                async with answering():
                    accepted = await self.acceptor.accept(new, generation_id)
        except BaseException:
            if expecting is not None:
                expecting.cancel()
                self.hub.expect_no_more(generation_id)
            raise
        if accepted.is_new:
            self.metrics.accepted.labels(new.priority).inc()
        return accepted

    async def meta(self, generation_id: str, owner: str) -> Meta:
        """Return the generation, if it is the asker's.

        Raises:
            NotFound: there is none, it was sealed after a loss, or it belongs to somebody else:
                the three look the same from outside.
        """
        meta = await self.store.meta(generation_id) if is_generation_id(generation_id) else None
        if meta is None or meta.status == "sealed" or meta.owner != owner:
            raise NotFound
        return meta


@asynccontextmanager
async def answering(since_s: float | None = None) -> AsyncIterator[None]:
    """Give what is inside `ANSWER_S`.

    Args:
        since_s: when the request came, loop time, where something else was waited for before.

    Raises:
        Unavailable: it took longer.
    """
    begun_s = asyncio.get_running_loop().time() if since_s is None else since_s
    try:
        async with asyncio.timeout_at(begun_s + ANSWER_S):
            yield
    except TimeoutError as exc:
        raise Unavailable("Redis did not answer in time") from exc


def error_response(error: RequestError, shape: Shape, headers: Mapping[str, str]) -> Response:
    """Answer with an error and headers of its own; those that need none are raised."""
    shaped = shape(error)
    response = Response(shaped.body, error.status, headers)
    del response.headers["content-length"]  # it is one of the error's own
    response.raw_headers += [*error_headers(error, shaped), *shaped.headers]
    return response


def json_response(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON; never stored, because a generation's state is of this moment."""
    return Response(
        msgspec.json.encode(content),
        status,
        {"cache-control": "no-store", **(headers or {})},
        media_type="application/json",
    )
