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

from api.edge.auth import Authenticator
from api.edge.heavy_reads import HeavyReads
from api.edge.metrics import Metrics
from api.edge.slowing import Slowing
from api.edge.transfer_limit import (
    DOWNLOADS_AT_ONCE,
    DOWNLOADS_OF_OWNER,
    UPLOADS_AT_ONCE,
    UPLOADS_OF_OWNER,
    Turns,
)
from api.errors import Shape, error_headers, request_error
from api.hub.hub import Hub
from api.transport.peer import Peers
from shared.config.credentials import EVERYBODY, Identity
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import Draining, NotFound, RequestError, Unavailable
from shared.files.store import FileStore
from shared.log.ids import is_generation_id, new_generation_id
from shared.log.records import Meta
from shared.log.store import Store
from shared.queue.accept import Accepted, Acceptor, NewGeneration, queued_meta
from shared.redis.client import Client
from shared.text.large import LargeWork, encode_json

OPERATORS_ONLY = "this needs an operator's key: key:owner:admin in TAILRACE_API_KEYS"
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
    uploads: Turns = field(default_factory=lambda: Turns(UPLOADS_AT_ONCE, UPLOADS_OF_OWNER))
    downloads: Turns = field(default_factory=lambda: Turns(DOWNLOADS_AT_ONCE, DOWNLOADS_OF_OWNER))
    heavy_reads: HeavyReads = field(default_factory=HeavyReads)
    large: LargeWork = field(default_factory=LargeWork)
    is_draining: bool = False
    peers: Peers = field(init=False)
    slowing: Slowing = field(init=False)

    def __post_init__(self) -> None:
        """Raises ConfigurationError: the trusted proxies cannot be read."""
        self.peers = Peers.read(self.settings.trusted_proxies)
        self.slowing = Slowing(self.peers)
        if not self.authenticator.is_configured:  # then everybody is the same owner
            self.uploads.share_freely()
            self.downloads.share_freely()

    def owner(self, request: Request) -> str:
        """Return who asks.

        Raises:
            RequestError: 401.
        """
        return self.identity(request).owner

    def identity(self, request: Request) -> Identity:
        """Return who asks, and what else the key allows.

        Raises:
            RequestError: 401.
        """
        return self.authenticator.identify(request.headers, request.query_params)

    def require_operator(self, request: Request) -> None:
        """Refuse everybody but an operator; without credentials everybody is one.

        Raises:
            RequestError: 401; 403, the key is an ordinary one.
        """
        if not self.identity(request).is_operator:
            raise request_error("forbidden", OPERATORS_ONLY)

    def listed_owner(self, request: Request) -> tuple[str, bool]:
        """Return whose work a listing is to show, and whether its rows name their owners.

        The asker's, unless the query `owner` names somebody else, or `*`: everybody.

        Raises:
            RequestError: 401; 403, only operators may see the work of others.
        """
        identity = self.identity(request)
        wanted = request.query_params.get("owner", "")
        if wanted not in ("", identity.owner) and not identity.is_operator:
            raise request_error("forbidden", OPERATORS_ONLY)
        return wanted or identity.owner, bool(wanted)

    def owner_to_end(self, request: Request) -> str:
        """Return whose work the asker may end: the asker's own, or an operator's `*`: everybody's.

        Raises:
            RequestError: 401.
        """
        identity = self.identity(request)
        return EVERYBODY if identity.is_operator else identity.owner

    def refuse_while_draining(self) -> None:
        if self.is_draining:
            raise Draining()

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
    return _json_response(msgspec.json.encode(content), status, headers)


async def long_json_response(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """As `json_response`, for what holds a whole answer."""
    return _json_response(await encode_json(content), status, headers)


def _json_response(body: bytes, status: int, headers: Mapping[str, str] | None) -> Response:
    all_headers = {"cache-control": "no-store", **(headers or {})}
    return Response(body, status, all_headers, media_type="application/json")
