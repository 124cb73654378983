"""The reserved paths below /ds/v1/stream/__ds: subscriptions, and the key of their webhooks.

A worker that was woken sends the token of its wake instead of an API key. The token names the
owner, and is valid for one subscription and one wake. Here `generation` is the number of a wake,
and not a generation of text.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from api.deadline import answer_deadline
from api.dialects.durable_streams.replies import reply
from api.dialects.durable_streams.request import PATH_BYTES_MAX, ROOT
from api.intake.arriving_body import read_body
from api.intake.body import read_object
from api.node import Node
from shared.config.settings import Settings
from shared.streams.signing import Signer, load_signer
from shared.streams.store import owner_of
from shared.streams.subscriptions import (
    LINKS_MAX,
    Config,
    Subscription,
    Subscriptions,
    owner_of_token,
    shown,
)
from shared.text.addresses import as_address, is_plainly_private

BODY_BYTES_MAX = 262_144
ID_CHARACTERS_MAX = 256
TEXT_CHARACTERS_MAX = 2_048
LEASE_MS, LEASE_MS_MIN, LEASE_MS_MAX = 30_000, 1_000, 600_000
STATUSES = {
    "INVALID_REQUEST": 400, "WEBHOOK_URL_REJECTED": 400, "TOKEN_INVALID": 401,
    "SUBSCRIPTION_NOT_FOUND": 404, "SUBSCRIPTION_ALREADY_EXISTS": 409, "FENCED": 409,
    "ALREADY_CLAIMED": 409, "NO_PENDING_WORK": 409, "INVALID_OFFSET": 409,
    "TOO_MANY_SUBSCRIPTIONS": 413,
}  # fmt: skip


class Refused(Exception):
    """A request of a subscription that is refused in the protocol's own shape."""

    def __init__(self, code: str, message: str, **members: Any) -> None:
        super().__init__(message)
        self.code = code
        self.members = {"code": code, "message": message, **members}

    def reply(self) -> Response:
        return json_reply(STATUSES[self.code], {"error": self.members})


class SubscriptionRoutes:
    """The handlers below /ds/v1/stream/__ds."""

    def __init__(self, node: Node, subscriptions: Subscriptions) -> None:
        self.node = node
        self.subscriptions = subscriptions
        self._signer: Signer | None = None

    async def keys(self, request: Request) -> ASGIApp:
        """GET …/jwks.json: the public key of webhooks."""
        async with answer_deadline():
            signer = await self._signing()
        headers = {"cache-control": "public, max-age=300"}
        body = msgspec.json.encode({"keys": [signer.jwk]})
        return reply(200, headers, body, media="application/jwk-set+json")

    async def create(self, request: Request) -> ASGIApp:
        """PUT …/subscriptions/{id}."""
        return await self._answer(self._create(request))

    async def _create(self, request: Request) -> Response:
        owner, sub_id = self._named(request)
        config = read_config(await self._body(request), self.node.settings)
        base = str(request.url).partition(ROOT)[0] + ROOT[:-1]
        async with answer_deadline():
            outcome = await self.subscriptions.create(owner, sub_id, config, base)
            if outcome == "differs":
                raise Refused("SUBSCRIPTION_ALREADY_EXISTS", "it has another configuration")
            if outcome == "full":
                raise Refused(
                    "TOO_MANY_SUBSCRIPTIONS", "TAILRACE_STREAM_SUBSCRIPTIONS_MAX: delete some"
                )
            found = await self._found(owner, sub_id)
            return json_reply(201 if outcome == "created" else 200, await self._shown(found))

    async def get(self, request: Request) -> ASGIApp:
        """GET …/subscriptions/{id}."""

        async def work() -> Response:
            async with answer_deadline():
                return json_reply(200, await self._shown(await self._found(*self._named(request))))

        return await self._answer(work())

    async def delete(self, request: Request) -> ASGIApp:
        """DELETE …/subscriptions/{id}; also one that does not exist."""

        async def work() -> Response:
            owner, sub_id = self._named(request)
            async with answer_deadline():
                await self.subscriptions.change_links(owner, sub_id, "delete", ())
            return reply(204)

        return await self._answer(work())

    async def link(self, request: Request) -> ASGIApp:
        """POST …/subscriptions/{id}/streams."""

        async def work() -> Response:
            owner, sub_id = self._named(request)
            paths = read_paths((await self._body(request)).get("streams"))
            if not paths:
                raise Refused("INVALID_REQUEST", "streams must be an array of paths, not empty")
            return await self._link(owner, sub_id, "add", paths)

        return await self._answer(work())

    async def unlink(self, request: Request) -> ASGIApp:
        """DELETE …/subscriptions/{id}/streams/{path}."""

        async def work() -> Response:
            owner, sub_id = self._named(request)
            paths = read_paths([request.path_params["path"]])
            return await self._link(owner, sub_id, "remove", paths)

        return await self._answer(work())

    async def _link(self, owner: str, sub_id: str, what: str, paths: tuple[str, ...]) -> Response:
        async with answer_deadline():
            outcome = await self.subscriptions.change_links(owner, sub_id, what, paths)
        if outcome == "absent":
            raise _not_found()
        if outcome == "full":
            raise Refused("INVALID_REQUEST", f"at most {LINKS_MAX} streams")
        return reply(204)

    async def claim(self, request: Request) -> ASGIApp:
        """POST …/subscriptions/{id}/claim, of pull-wake."""

        async def work() -> Response:
            owner, sub_id = self._named(request)
            worker = (await self._body(request)).get("worker")
            if not isinstance(worker, str) or not 0 < len(worker) <= ID_CHARACTERS_MAX:
                raise Refused("INVALID_REQUEST", "worker must be a text that names you")
            async with answer_deadline():
                _check_kind(await self._found(owner, sub_id), "pull-wake")
                kind, *rest = await self.subscriptions.act(owner, sub_id, "claim", worker=worker)
                if kind == "held":
                    raise Refused(
                        "ALREADY_CLAIMED", "another worker holds it",
                        current_holder=rest[0], generation=int(rest[1]),
                    )  # fmt: skip
                if kind == "nothing":
                    raise Refused("NO_PENDING_WORK", "no stream has unread entries")
                return await self._claimed(owner, sub_id, int(rest[0]), rest[1])

        return await self._answer(work())

    async def _claimed(self, owner: str, sub_id: str, generation: int, wake_id: str) -> Response:
        found = await self._found(owner, sub_id)
        content = {
            "wake_id": wake_id, "generation": generation, "token": found.token(generation),
            "streams": [link.fields() for link in found.links],
            "lease_ttl_ms": found.config.lease_ttl_ms,
        }  # fmt: skip
        return json_reply(200, content)

    async def callback(self, request: Request) -> ASGIApp:
        """POST …/subscriptions/{id}/callback: a webhook's receiver acknowledges."""
        return await self._answer(self._act(request, "ack", "webhook"))

    async def ack(self, request: Request) -> ASGIApp:
        """POST …/subscriptions/{id}/ack: a worker of pull-wake acknowledges."""
        return await self._answer(self._act(request, "ack", "pull-wake"))

    async def release(self, request: Request) -> ASGIApp:
        """POST …/subscriptions/{id}/release: a worker of pull-wake gives the wake back."""
        return await self._answer(self._act(request, "release", "pull-wake"))

    async def _act(self, request: Request, what: str, kind: str) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        owner, sub_id = owner_of_token(token), self._id(request)
        if not owner:
            raise Refused("TOKEN_INVALID", "send the token of the wake as Authorization: Bearer")
        body = await self._body(request)
        async with answer_deadline():
            found = await self.subscriptions.get(owner, sub_id)
            generation = None if found is None else found.generation_of(token)
            if found is None or generation is None:
                raise Refused("TOKEN_INVALID", "this is not the token of a wake")
            _check_kind(found, kind)
            if body.get("generation") != generation:
                raise Refused("FENCED", "the generation is not that of the token")
            outcome, *rest = await self.subscriptions.act(
                owner, sub_id, what,
                generation=generation, wake_id=str(body.get("wake_id", "")),
                acks=read_acks(body.get("acks")) if what == "ack" else (),
                is_done=body.get("done") is True,
            )  # fmt: skip
        if outcome in ("fenced", "absent"):
            raise Refused("FENCED", "this wake is over")
        if outcome == "offset":
            raise Refused("INVALID_OFFSET", rest[0])
        if what == "release":
            return reply(204)
        return json_reply(200, {"ok": True, "next_wake": bool(rest[0])})

    # Common

    async def _answer(self, work: Any) -> ASGIApp:
        try:
            response: Response = await work
        except Refused as refused:
            return refused.reply()
        return response

    def _named(self, request: Request) -> tuple[str, str]:
        return owner_of(self.node.owner(request)), self._id(request)

    @staticmethod
    def _id(request: Request) -> str:
        sub_id: str = request.path_params["id"]
        if len(sub_id) > ID_CHARACTERS_MAX:
            raise Refused("INVALID_REQUEST", f"an id has at most {ID_CHARACTERS_MAX} characters")
        return sub_id

    async def _found(self, owner: str, sub_id: str) -> Subscription:
        found = await self.subscriptions.get(owner, sub_id)
        if found is None:
            raise _not_found()
        return found

    async def _shown(self, found: Subscription) -> dict[str, Any]:
        signer = await self._signing()
        signing = {
            "alg": "ed25519", "kid": signer.key_id, "jwks_url": f"{found.base}/__ds/jwks.json",
        }  # fmt: skip
        return shown(found, signing)

    async def _signing(self) -> Signer:
        if self._signer is None:
            self._signer = await load_signer(self.node.redis)
        return self._signer

    async def _body(self, request: Request) -> dict[str, Any]:
        async with self.node.bodies.body() as hold:
            raw = await read_body(
                request.headers, request.receive,
                bytes_max=BODY_BYTES_MAX, hold=hold, is_any_type=True,
            )  # fmt: skip
        return read_object(bytes(raw) or b"{}", bytes_max=BODY_BYTES_MAX)


def json_reply(status: int, content: Any) -> Response:
    headers = {"cache-control": "no-store"}
    return reply(status, headers, msgspec.json.encode(content), media="application/json")


def read_config(body: dict[str, Any], settings: Settings) -> Config:
    """Return what a client asks for.

    Raises:
        Refused: 400.
    """
    kind = body.get("type")
    if kind not in ("webhook", "pull-wake"):
        raise Refused("INVALID_REQUEST", "type must be webhook or pull-wake")
    lease_ms = body.get("lease_ttl_ms", LEASE_MS)
    is_number = isinstance(lease_ms, int) and not isinstance(lease_ms, bool)
    if not is_number or not LEASE_MS_MIN <= lease_ms <= LEASE_MS_MAX:
        raise Refused(
            "INVALID_REQUEST", f"lease_ttl_ms: an integer from {LEASE_MS_MIN} to {LEASE_MS_MAX}"
        )
    pattern, wake_stream = _path(body.get("pattern", "")), _path(body.get("wake_stream", ""))
    streams = read_paths(body.get("streams", []))
    if not pattern and not streams:
        raise Refused("INVALID_REQUEST", "name a pattern, streams, or both")
    if kind == "pull-wake" and not wake_stream:
        raise Refused("INVALID_REQUEST", "pull-wake needs wake_stream")
    description = body.get("description") or ""
    if not isinstance(description, str) or len(description) > TEXT_CHARACTERS_MAX:
        raise Refused("INVALID_REQUEST", f"description: at most {TEXT_CHARACTERS_MAX} characters")
    return Config(
        type=kind, lease_ttl_ms=lease_ms, pattern=pattern, streams=streams,
        url=_url(body.get("webhook"), settings) if kind == "webhook" else "",
        wake_stream=wake_stream if kind == "pull-wake" else "", description=description,
    )  # fmt: skip


def read_paths(value: Any) -> tuple[str, ...]:
    """Return the paths of streams in a body. Raises Refused: 400."""
    if not isinstance(value, list) or len(value) > LINKS_MAX:
        raise Refused("INVALID_REQUEST", f"streams must be an array of at most {LINKS_MAX} paths")
    paths = tuple(dict.fromkeys(_path(path) for path in value))
    if "" in paths:
        raise Refused("INVALID_REQUEST", "a path must not be empty")
    return paths


def read_acks(value: Any) -> list[tuple[str, str]]:
    """Return the acknowledged offsets: path and offset each. Raises Refused: 400."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > LINKS_MAX:
        raise Refused("INVALID_REQUEST", "acks must be an array")
    acks = []
    for ack in value:
        offset = ack.get("offset") if isinstance(ack, dict) else None
        if not isinstance(offset, str) or len(offset) > TEXT_CHARACTERS_MAX:
            raise Refused("INVALID_REQUEST", "an ack has stream and offset")
        acks.append((_path(ack.get("stream") or ack.get("path")), offset))
    return acks


def _path(value: Any) -> str:
    if not isinstance(value, str) or len(value.encode("utf-8", "replace")) > PATH_BYTES_MAX:
        raise Refused("INVALID_REQUEST", f"a path is a text of at most {PATH_BYTES_MAX} bytes")
    return value.strip("/")


def _url(webhook: Any, settings: Settings) -> str:
    """Return the URL of a webhook: https and public; http only to this machine, if allowed."""
    url = webhook.get("url") if isinstance(webhook, dict) else None
    if not isinstance(url, str) or not url or len(url) > TEXT_CHARACTERS_MAX:
        raise Refused("INVALID_REQUEST", "webhook.url must be a URL")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise Refused("WEBHOOK_URL_REJECTED", "webhook.url is not a URL") from None
    is_private_allowed = settings.webhook_private == "allow"
    if "@" in parts.netloc or not host or not url.isascii() or not url.isprintable():
        raise Refused("WEBHOOK_URL_REJECTED", "webhook.url must name a host and no credentials")
    if parts.scheme == "http" and not (is_private_allowed and _is_this_machine(host)):
        raise Refused("WEBHOOK_URL_REJECTED", "webhook.url must begin with https://")
    if parts.scheme not in ("http", "https"):
        raise Refused("WEBHOOK_URL_REJECTED", "webhook.url must begin with https://")
    if not is_private_allowed and is_plainly_private(host):
        raise Refused("WEBHOOK_URL_REJECTED", "webhook.url must be a public address")
    return url


def _is_this_machine(host: str) -> bool:
    address = as_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _check_kind(found: Subscription, kind: str) -> None:
    if found.config.type != kind:
        raise Refused("INVALID_REQUEST", f"this subscription is not of the type {kind}")


def _not_found() -> Refused:
    return Refused("SUBSCRIPTION_NOT_FOUND", "no such subscription")
