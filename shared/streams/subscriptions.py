"""Subscriptions: who is woken when streams have new entries, and how far they have acknowledged.

A subscription is linked to streams by name or by a pattern. When a linked stream has unread entries
and nobody works on the subscription, a wake begins: a webhook, or an entry in the wake stream.
Wakes are numbered by `generation`, which fences a worker whose lease has run out. Everything of one
subscription changes in one script. The jobs role looks at each subscription from time to time
(jobs/stream_wakes.py), because a node may die between an append and the wake.

Every coroutine may raise `Unavailable`: Redis did not answer in time; repeating is safe.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from shared.redis import stream_keys
from shared.redis.client import translated
from shared.redis.jobs_wake import wake_jobs
from shared.streams.glob import matches
from shared.streams.place import ZERO
from shared.streams.store import StreamStore

LINKS_MAX = 1_000  # streams of one subscription
NAMES_READ_MAX = 100_000  # of an owner, when a pattern is matched against them
LOOK_S = 10.0  # the jobs role looks at a subscription at least so often
TOKEN_PREFIX = "dsw"


class Config(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client has asked for."""

    type: str
    lease_ttl_ms: int
    pattern: str = ""
    streams: tuple[str, ...] = ()
    url: str = ""
    wake_stream: str = ""
    description: str = ""

    @property
    def digest(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


class Link(NamedTuple):
    """One stream of a subscription."""

    path: str
    kind: str
    acked: str
    tail: str

    def fields(self) -> dict[str, Any]:
        """Return the link as clients see it."""
        return {
            "path": self.path, "link_type": self.kind, "acked_offset": self.acked,
            "tail_offset": self.tail, "has_pending": self.tail > self.acked,
        }  # fmt: skip


class Subscription(NamedTuple):
    """One subscription as it is now.

    Attributes:
        base: the URL of the streams, under which the client has created the subscription.
        is_delivered: the webhook of the present wake was answered with 2xx.
        until_ms: the end of the lease; 0: no lease.
    """

    owner: str
    id: str
    config: Config
    created_at: str
    base: str
    secret: str
    status: str
    generation: int
    wake_id: str
    retries: int
    is_delivered: bool
    until_ms: int
    links: tuple[Link, ...]

    def token(self, generation: int) -> str:
        """Return the token of a wake."""
        named = f"{self.id} {generation}".encode()
        mac = hmac.new(self.secret.encode(), named, hashlib.sha256).hexdigest()
        return f"{TOKEN_PREFIX}.{self.owner}.{generation}.{mac}"

    def generation_of(self, token: str) -> int | None:
        """Return the generation of a token; None: it is not one of this subscription."""
        _, _, number, _ = (token.split(".") + [""] * 4)[:4]
        if not (number.isascii() and number.isdigit() and len(number) < 16):
            return None
        is_good = hmac.compare_digest(token.encode(), self.token(int(number)).encode())
        return int(number) if is_good else None


def owner_of_token(token: str) -> str:
    """Return the digest of the owner that a token names; empty: it is no token."""
    parts = token.split(".")
    is_token = len(parts) == 4 and parts[0] == TOKEN_PREFIX and parts[1].isalnum()
    return parts[1] if is_token else ""


class Subscriptions:
    """The subscriptions of all owners."""

    def __init__(self, store: StreamStore) -> None:
        self.store = store
        self.redis = store.redis

    async def create(self, owner: str, sub_id: str, config: Config, base: str) -> str:
        """Create or confirm; return the outcome of stream_sub_create.lua."""
        links = [part for path in config.streams for part in (path, "e")]
        if config.pattern:
            for path in await self._matching(owner, config.pattern):
                links += (path, "g")
        fields = [
            "id", sub_id, "type", config.type, "lease_ms", config.lease_ttl_ms,
            "config", msgspec.json.encode(config), "base", base, "secret", secrets.token_hex(32),
            "created", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "status", "active",
        ]  # fmt: skip
        names = [*self._keys(owner, sub_id), stream_keys.subscriptions(owner)]
        limit = self.store.settings.stream_subscriptions_max
        links = links[: 2 * LINKS_MAX]
        args = [sub_id, config.digest, limit, len(links) // 2, *links, *fields]
        (outcome,) = await self.store.scripts.run("stream_sub_create", names, args)
        if outcome == b"created":
            await self.look_at(owner, sub_id, LOOK_S)
        return str(outcome.decode())

    async def get(self, owner: str, sub_id: str) -> Subscription | None:
        """Return a subscription with its links; None: there is none."""
        record_key, links_key, tails_key = self._keys(owner, sub_id)
        with translated():
            record = await self.redis.hgetall(record_key)  # type: ignore[misc]
            links = await self.redis.hgetall(links_key)  # type: ignore[misc]
            tails = await self.redis.hmget(tails_key, list(links)) if links else []  # type: ignore[misc]
        if not record:
            return None
        found = {name.decode(): value.decode() for name, value in record.items()}
        return Subscription(
            owner, sub_id, msgspec.json.decode(found["config"], type=Config), found["created"],
            found["base"], found["secret"], found["status"], int(found["generation"]),
            found.get("wake_id", ""), int(found.get("retries", 0)), "delivered" in found,
            int(found.get("until", 0)),
            tuple(
                _link(path, value, tail)
                for (path, value), tail in zip(links.items(), tails, strict=True)
            ),
        )  # fmt: skip

    async def change_links(self, owner: str, sub_id: str, what: str, paths: Sequence[str]) -> str:
        """Do `add`, `remove`, `forget` or `delete` of stream_sub_links.lua; return its outcome."""
        names = [*self._keys(owner, sub_id), stream_keys.subscriptions(owner)]
        reply = await self.store.scripts.run(
            "stream_sub_links", names, [what, sub_id, LINKS_MAX, *paths]
        )
        return str(reply[0].decode())

    async def act(
        self,
        owner: str,
        sub_id: str,
        what: str,
        *,
        generation: int = 0,
        wake_id: str = "",
        acks: Sequence[tuple[str, str]] = (),
        is_done: bool = False,
        worker: str = "",
    ) -> list[str]:
        """Do what stream_sub_act.lua describes; announce the next wake, if one begins."""
        args = [
            what, generation, wake_id, "1" if is_done else "", worker, new_wake_id(),
            *(part for ack in acks for part in ack),
        ]  # fmt: skip
        reply = await self.store.scripts.run("stream_sub_act", self._keys(owner, sub_id), args)
        outcome = [part.decode() for part in reply]
        if outcome[0] == "ok" and outcome[1]:
            await self.announce(owner, sub_id, int(outcome[1]), outcome[2])
        return outcome

    # Waking

    async def notify(self, owner: str, path: str, *, is_new: bool = False) -> None:
        """Begin a wake of each subscription of the owner for which this stream is news."""
        with translated():
            ids = await self.redis.smembers(stream_keys.subscriptions(owner))  # type: ignore[misc]
        for raw in ids:
            sub_id = raw.decode()
            with translated():
                config = await self.redis.hget(  # type: ignore[misc]
                    stream_keys.subscription(owner, sub_id), "config"
                )
                is_linked = await self.redis.hexists(stream_keys.links(owner, sub_id), path)  # type: ignore[misc]
            if config is None:
                continue
            pattern = msgspec.json.decode(config, type=Config).pattern
            is_match = bool(pattern) and matches(pattern, path)
            if is_linked or is_match:
                await self.wake(owner, sub_id, path, is_match=is_match, is_new=is_new)

    async def wake(
        self,
        owner: str,
        sub_id: str,
        path: str = "",
        *,
        is_match: bool = False,
        is_new: bool = False,
    ) -> list[str]:
        """Begin a wake if there is work and nobody works; return stream_sub_wake.lua's outcome."""
        args = [path, "1" if is_match else "", "1" if is_new else "", new_wake_id(), LINKS_MAX]
        reply = await self.store.scripts.run("stream_sub_wake", self._keys(owner, sub_id), args)
        outcome = [part.decode() for part in reply]
        if outcome[0] == "woken":
            await self.announce(owner, sub_id, int(outcome[1]), outcome[2])
        return outcome

    async def announce(self, owner: str, sub_id: str, generation: int, path: str) -> None:
        """Tell the worker of a wake: by an entry, or by a webhook of the jobs role."""
        found = await self.get(owner, sub_id)
        if found is None:
            return
        if found.config.type == "webhook":
            await self.look_at(owner, sub_id, 0.0)
            await wake_jobs(self.redis)
            return
        event = {
            "type": "wake", "subscription_id": sub_id, "stream": path, "generation": generation,
            "ts": time.time_ns() // 1_000_000,
        }  # fmt: skip
        # Not `notify`: a wake is no news for another subscription, else wakes would wake for ever.
        await self.store.append(
            owner, found.config.wake_stream, msgspec.json.encode(event), media="application/json"
        )

    async def look_at(self, owner: str, sub_id: str, in_s: float) -> None:
        """Let the jobs role look at a subscription after `in_s` seconds."""
        at_ms = time.time_ns() // 1_000_000 + round(in_s * 1000)
        with translated():
            await self.redis.zadd(stream_keys.WAKES, {f"{owner} {sub_id}": at_ms})

    async def forget_owner(self, owner: str) -> int:
        """Delete all subscriptions of an owner; return how many."""
        with translated():
            ids = await self.redis.smembers(stream_keys.subscriptions(owner))  # type: ignore[misc]
        for raw in ids:
            await self.change_links(owner, raw.decode(), "delete", ())
        return len(ids)

    async def forget_stream(self, owner: str, path: str) -> None:
        """Unlink a stream that was deleted."""
        with translated():
            ids = await self.redis.smembers(stream_keys.subscriptions(owner))  # type: ignore[misc]
        for raw in ids:
            await self.change_links(owner, raw.decode(), "forget", [path])

    async def _matching(self, owner: str, pattern: str) -> list[str]:
        with translated():
            names = await self.redis.zrange(stream_keys.names(owner), 0, NAMES_READ_MAX - 1)
        return [path for path in (name.decode() for name in names) if matches(pattern, path)]

    @staticmethod
    def _keys(owner: str, sub_id: str) -> list[str]:
        return [
            stream_keys.subscription(owner, sub_id),
            stream_keys.links(owner, sub_id),
            stream_keys.tails(owner),
        ]


def new_wake_id() -> str:
    return f"w_{secrets.token_hex(12)}"


def shown(found: Subscription, signing: Mapping[str, str]) -> dict[str, Any]:
    """Return a subscription as clients see it."""
    config = found.config
    fields: dict[str, Any] = {
        "id": found.id, "subscription_id": found.id, "type": config.type,
        "pattern": config.pattern or None,
        "streams": [
            {"path": link.path, "link_type": link.kind, "acked_offset": link.acked}
            for link in found.links
        ],
        "webhook": {"url": config.url, "signing": dict(signing)} if config.url else None,
        "wake_stream": config.wake_stream or None, "lease_ttl_ms": config.lease_ttl_ms,
        "created_at": found.created_at, "status": found.status,
        "description": config.description or None,
    }  # fmt: skip
    return {name: value for name, value in fields.items() if value is not None}


def _link(path: bytes, value: bytes, tail: bytes | None) -> Link:
    kinds, _, acked = value.decode().partition(" ")
    kind = "explicit" if "e" in kinds else "glob"
    return Link(path.decode(), kind, acked, tail.decode() if tail else str(ZERO))
