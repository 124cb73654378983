"""The parts that all request handlers of one API node share.

Holds references, and the checks that several handlers begin with. It does no other work: prompts
are accepted by `acceptance` (api/intake/acceptance.py), logs are read through `hub`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.requests import Request

from api.body_room import BodyRoom
from api.edge.admission import OPERATORS_ONLY, check_scope
from api.edge.auth import Authenticator
from api.edge.heavy_reads import HeavyReadLimit
from api.edge.key_watch import KeyWatch
from api.edge.metrics import Metrics
from api.edge.reader_places import ReaderPlace, ReaderPlaces
from api.edge.share_watch import ShareWatch
from api.edge.slowing import FailureDelay
from api.edge.transfer_limit import (
    DOWNLOADS_AT_ONCE,
    DOWNLOADS_OF_OWNER,
    UPLOADS_AT_ONCE,
    UPLOADS_OF_OWNER,
    TransferLimit,
)
from api.edge.waiting_places import WaitingPlaces
from api.errors import request_error
from api.hub.audience import AudienceChange
from api.hub.hub import Hub
from api.intake.acceptance import Acceptance
from api.transport.extensions import IDENTITY
from api.transport.peer import TrustedProxies
from shared.config.credentials import EVERYBODY, Identity
from shared.config.limits import OwnerLimits
from shared.config.limits_file import LimitsFile
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import Draining, NotFound, Unavailable
from shared.files.store import FileStore
from shared.later.shares import Shares
from shared.later.token_owners import SeenOwners, note_planner, renew_planners
from shared.log.ids import is_generation_id
from shared.log.records import Meta
from shared.log.store import Store
from shared.log.visibility import is_visible
from shared.queue.accept import Acceptor
from shared.redis.client import Client
from shared.text.large import LargeWork
from shared.timeline.moment import Moment
from shared.timeline.writer import TimelineWriter

RENEW_PLANNERS_S = 60.0  # between two commands that note owners without a key


@dataclass(slots=True)
class Node:
    """One API node.

    Attributes:
        name: unique among the nodes of one Redis.
        models: by name; the first is the default.
        acceptor: accepts prompts in Redis, and finds a generation by its idempotency key. Request
            handlers use it only to find.
        acceptance: request handlers accept prompts with it. It calls `acceptor`, applies the limits
            of owners, lets the hub listen to the new log, and keeps the metrics.
        started_at: Unix seconds.
        uploads, downloads: bound how many transfers run at once.
        heavy_reads: bounds how many whole logs are read at once.
        large: does the work on large bodies one at a time.
        bodies: the memory for bodies until they are accepted.
        is_draining: the node is stopping and takes no new prompts.
        peers: finds the address of a client behind trusted proxies.
        slowing: delays answers to wrong credentials.
        shares: tokens that read one generation or session.
        limits: how much each owner may use.
        share_watch: breaks off the connections of deleted shares.
        key_watch: breaks off the connections of keys that their file has no longer.
        places: counts the open readers of owners with a limit.
        timeline: writes the moments of generations, in the background.
        waiting_places: bounds the sockets that wait for their credentials.
        seen_owners: owners without a key who have asked; `renew_planners` notes them.
    """

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
    started_at: int
    uploads: TransferLimit = field(
        default_factory=lambda: TransferLimit(UPLOADS_AT_ONCE, UPLOADS_OF_OWNER)
    )
    downloads: TransferLimit = field(
        default_factory=lambda: TransferLimit(DOWNLOADS_AT_ONCE, DOWNLOADS_OF_OWNER)
    )
    heavy_reads: HeavyReadLimit = field(default_factory=HeavyReadLimit)
    large: LargeWork = field(default_factory=LargeWork)
    bodies: BodyRoom = field(init=False)
    is_draining: bool = False
    waiting_places: WaitingPlaces = field(default_factory=WaitingPlaces)
    seen_owners: SeenOwners = field(default_factory=SeenOwners)
    acceptance: Acceptance = field(init=False)
    limits: LimitsFile = field(init=False)
    shares: Shares = field(init=False)
    share_watch: ShareWatch = field(init=False)
    key_watch: KeyWatch = field(init=False)
    places: ReaderPlaces = field(init=False)
    timeline: TimelineWriter = field(init=False)
    peers: TrustedProxies = field(init=False)
    slowing: FailureDelay = field(init=False)

    def __post_init__(self) -> None:
        """Build the parts that follow from other parts.

        Raises:
            ConfigurationError: the trusted proxies or the limits cannot be read.
        """
        self.limits = LimitsFile(self.settings)
        self.acceptance = Acceptance(
            self.acceptor,
            self.hub,
            limits_of=self.limits_of,
            node=self.name,
            accepted=self.metrics.accepted,
            refused=self.metrics.limit_refusals,
            accept_seconds=self.metrics.accept_seconds,
        )
        self.bodies = BodyRoom(self.settings.bodies_bytes_max, self.settings.body_bytes_max)
        self.metrics.watch_bodies(self.bodies)
        self.shares = self.authenticator.shares = Shares(self.redis)
        self.share_watch = ShareWatch(self.shares)
        self.key_watch = KeyWatch(self.authenticator.is_key_revoked)
        self.authenticator.on_keys_changed = self.key_watch.end
        self.timeline = TimelineWriter(self.redis, self.settings)
        self.places = ReaderPlaces(self.name, self.store, self.metrics.limit_refusals)
        self.peers = TrustedProxies.read(self.settings.trusted_proxies)
        self.slowing = FailureDelay(self.peers)
        if not self.authenticator.is_configured:  # all clients are one owner: no bound per owner
            self.uploads.share_freely()
            self.downloads.share_freely()

    def note_readers(self, change: AudienceChange) -> None:
        """Note in the timeline of a generation which readers came to this node and left it."""
        moment = Moment(
            "readers", node=self.name, joined=change.joined, left=change.left,
            readers=change.readers,
        )  # fmt: skip
        self.timeline.note(change.generation_id, moment, age_s=change.age_s)

    def owner(self, request: Request) -> str:
        """Return the owner whose credentials the request carries.

        Raises:
            RequestError: 401, the credentials are missing or wrong.
        """
        return self.identity(request).owner

    def identity(self, request: Request) -> Identity:
        """Return who asks: as `admit` has found, else by the credentials of the request.

        Raises:
            RequestError: 401, the credentials are missing or wrong.
        """
        found: Identity | None = request.scope.get(IDENTITY)
        return found or self.authenticator.identify(request.headers, request.query_params)

    def limits_of(self, identity: Identity) -> OwnerLimits:
        """Return how much the owner of a request may use."""
        return self.limits.limits.of(identity.owner, identity.groups, identity.limits)

    def place_of(self, identity: Identity) -> ReaderPlace | None:
        """Return a place for a connection that reads; None: the owner has no limit."""
        most = self.limits_of(identity).connections_max
        return ReaderPlace(self.places, identity.owner, most) if most else None

    def listed_owner(self, request: Request) -> tuple[str, bool]:
        """Return the owner whose work a listing shows, and whether its rows name their owners.

        The default is the owner of the request. The query parameter `owner` names another one, or
        with `*` all owners.

        Raises:
            RequestError: 401, the credentials are missing or wrong; 403, an ordinary key asks for
                the work of other owners.
        """
        identity = self.identity(request)
        query_owner = request.query_params.get("owner", "")
        if query_owner not in ("", identity.owner) and not identity.is_operator:
            raise request_error("forbidden", OPERATORS_ONLY)
        return query_owner or identity.owner, bool(query_owner)

    def owner_to_end(self, request: Request) -> str:
        """Return the owner whose work the request may end; `*`, an operator's: all owners.

        Raises:
            RequestError: 401, the credentials are missing or wrong.
        """
        identity = self.identity(request)
        return EVERYBODY if identity.is_operator else identity.owner

    def refuse_while_draining(self) -> None:
        """Raise `Draining` while the node is stopping."""
        if self.is_draining:
            raise Draining()

    def require(self, request: Request, scope: str) -> None:
        """Refuse a request that needs another scope than its route does, because of its body.

        Raises:
            RequestError: 401, the credentials are missing or wrong; 403, they lack the scope.
        """
        check_scope(self.identity(request), scope)

    async def note_planner(self, request: Request) -> None:
        """Note an owner without a key who plans work, so that the jobs role will start it.

        Raises:
            RequestError: 401, the credentials are missing or wrong.
            Unavailable: Redis did not answer in time.
        """
        identity = self.identity(request)
        if identity.is_keyless:
            await note_planner(self.redis, identity.owner, time.time())

    async def renew_planners(self) -> None:
        """Note once a minute, until cancelled, which owners without a key still come."""
        while True:
            await asyncio.sleep(RENEW_PLANNERS_S)
            # An owner who is not noted because Redis is away is noted an hour later.
            with contextlib.suppress(Unavailable):
                await renew_planners(self.redis, self.seen_owners.take(), time.time())

    def asker(self, viewer: str | Identity, meta: Meta | None = None) -> str:
        """Return who asks for an end, for the timeline: `owner` or `operator`, and this node."""
        owner = viewer if isinstance(viewer, str) else viewer.owner
        is_owner = meta is None or owner == meta.owner
        return f"{'owner' if is_owner else 'operator'} {self.name}"

    async def meta_to_end(self, generation_id: str, identity: Identity) -> Meta:
        """Return a generation that `identity` may end: for an operator that of any owner.

        Raises:
            NotFound, Unavailable: as `meta`.
        """
        if not identity.is_operator or not is_generation_id(generation_id):
            return await self.meta(generation_id, identity)
        meta = await self.store.meta(generation_id)
        return await self.meta(generation_id, identity if meta is None else meta.owner)

    async def meta(self, generation_id: str, viewer: str | Identity) -> Meta:
        """Return a generation that `viewer` may see.

        Raises:
            NotFound: it does not exist, was sealed after a loss, or the viewer may not see it. The
                answer does not tell these cases apart.
            Unavailable: Redis did not answer.
        """
        meta = await self.store.meta(generation_id) if is_generation_id(generation_id) else None
        if not is_visible(meta, viewer):
            raise NotFound
        return meta
