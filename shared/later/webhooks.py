"""Webhooks: who is to be told of an end, what they are told, and what of it is due.

A webhook is registered before what it waits for is accepted, and noted as due when that has ended,
by whoever wrote the end or by a look at what nobody noted. From then on its record holds the bytes
to be sent, so that a delivery needs nothing else. The jobs role delivers (jobs/webhooks.py); this
module knows no HTTP. All keys carry `{jobs}`.

Owners take turns, so each index is by owner first. An older version knows no owners: what it writes
is found under the owner "". What this one writes, an older jobs role finds in its rounds, because
the record says that it is due, and to which host.

For another kind of work than generations:

    await register(redis, id, "batch", webhook, about, owner=owner)     before it is accepted
    a `Finder` for jobs/webhooks.py                                     says how it has ended
    await end(redis, id, webhook, WebhookEvent(type, data), owner=owner)     to be told at once

At least once; a receiver tells repeats by the header `webhook-id`, which is one per event.
Source: standardwebhooks.com, "Specification".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from shared.redis import keys
from shared.redis.client import Client, translated
from shared.redis.pipeline import Call
from shared.redis.scripts import Scripts

FIRST_LOOK_S = 10.0  # after which somebody looks whether the end was not noted
FIRST_LOOK_OTHER_S = 2.0
KEPT_S = 10 * 86_400.0  # a record that nothing happens to; a batch may take seven days
OWNER_LOOKS_S = 100.0  # looks a second at what one owner waits for, at most
SECRET_PREFIX = "whsec_"
# Of a generation's meta. Its request, which may be a megabyte, is not among them.
TOLD_FIELDS = (
    b"status", b"end", b"model", b"session", b"metadata", b"attempt", b"created", b"ended",
    b"webhook", b"owner",
)  # fmt: skip


class Webhook(msgspec.Struct, frozen=True):
    """Where to say that something has ended; `secret` as the client gave it."""

    url: str
    secret: str

    @property
    def host(self) -> str:
        """Whom deliveries are counted against."""
        return urlsplit(self.url).netloc.lower()

    def __repr__(self) -> str:
        return "Webhook(…)"  # neither belongs in a log


class WebhookEvent(NamedTuple):
    """What a receiver is told: `generation.completed`, and its data."""

    type: str
    data: Mapping[str, Any]


class WebhookRecord(NamedTuple):
    """What is known of one webhook that is waited with, or being delivered."""

    kind: str
    state: str  # waiting, due, done
    about: dict[str, Any]  # what an event can say of it when it is lost
    webhook: Webhook | None  # None: done with
    body: bytes
    missing: int  # how often it was looked for and not there
    is_seen: bool  # whether it was ever there
    owner: str = ""  # whose it is; empty: an older version has registered it


encode_webhook = msgspec.json.Encoder().encode
decode_webhook = msgspec.json.Decoder(Webhook).decode


async def register(
    redis: Client,
    subject_id: str,
    kind: str,
    webhook: Webhook,
    about: Mapping[str, Any],
    *,
    owner: str = "",
) -> None:
    """Wait with a webhook for the end of what is about to be accepted.

    Args:
        kind: `generation`, or the name of a `Finder`, which is asked soon and often.
        about: JSON; what an event says of it should it be lost. `id` is added.

    Raises:
        Unavailable.
    """
    fields: list[Any] = [
        "kind", kind, "url", webhook.url, "secret", webhook.secret, "owner", owner,
        "about", msgspec.json.encode(about),
    ]  # fmt: skip
    first_s = FIRST_LOOK_S if kind == "generation" else FIRST_LOOK_OTHER_S
    call = look_call(subject_id, kind, owner, after_s=first_s, is_new=True, fields=fields)
    await Scripts(redis).run("hook_wait", *call)


def look_call(
    subject_id: str,
    kind: str,
    owner: str,
    *,
    after_s: float,
    is_new: bool = False,
    fields: Sequence[Any] = (),
) -> Call:
    """Return the call of `hook_wait` that has somebody look at a webhook's subject later."""
    names = [keys.hook(subject_id), keys.HOOKS_WAITING, keys.hooks_clock(owner, kind)]
    apart_ms = round(1_000 / OWNER_LOOKS_S)
    when = [round(after_s * 1000), apart_ms, round(KEPT_S * 1000)]
    return names, [subject_id, "NX" if is_new else "XX", *when, *fields]


async def end(
    redis: Client, subject_id: str, webhook: Webhook, event: WebhookEvent, *, owner: str = ""
) -> bool:
    """Note that it has ended: its delivery is due now. False: that was known.

    Raises:
        Unavailable.
    """
    body, place = encode_event(event), keys.hook_place(owner, webhook.host)
    fields: list[Any] = [
        "url", webhook.url, "secret", webhook.secret, "host", webhook.host, "place", place,
        "body", body,
    ]  # fmt: skip
    digest, _ = keys.split_hook_place(place)
    names = [
        keys.hook(subject_id), keys.HOOKS_WAITING, keys.HOOKS_OWNERS, keys.hooks_hosts(digest),
        keys.hooks_due(place),
    ]  # fmt: skip
    args = [subject_id, digest, place, round(KEPT_S * 1000), *fields]
    return bool(await Scripts(redis).run("hook_end", names, args))


async def end_generation(redis: Client, generation_id: str) -> bool:
    """Note the end of a generation as its meta has it. False: known, unfinished, or no webhook."""
    fields = await read_told(redis, generation_id)
    event = generation_event(generation_id, fields)
    if event is None or not fields.get(b"webhook"):
        return False
    owner = fields.get(b"owner", b"").decode()
    return await end(redis, generation_id, decode_webhook(fields[b"webhook"]), event, owner=owner)


async def read_told(redis: Client, generation_id: str) -> dict[bytes, bytes]:
    """Return those fields of meta that an event tells of, and `webhook`; empty: there is none.

    Raises:
        Unavailable.
    """
    with translated():
        found = await redis.hmget(keys.meta(generation_id), list(TOLD_FIELDS))  # type: ignore[misc]
    pairs = zip(TOLD_FIELDS, found, strict=True)
    return {name: value for name, value in pairs if value is not None}


def generation_event(generation_id: str, fields: Mapping[bytes, bytes]) -> WebhookEvent | None:
    """Return what a generation's meta says of its end; None: there is none in it."""
    raw = fields.get(b"end")
    if not raw:
        return None
    said = msgspec.json.decode(raw)
    return WebhookEvent(
        f"generation.{said['status']}",
        {
            "id": generation_id,
            "object": "generation",
            "status": said["status"],
            "model": fields.get(b"model", b"").decode(),
            "session": fields.get(b"session", b"").decode() or None,
            "finish_reason": said.get("finish_reason"),
            "usage": said.get("usage"),
            "error": said.get("error"),
            "metadata": msgspec.json.decode(fields.get(b"metadata") or b"{}"),
            "attempt": int(fields.get(b"attempt") or 0),
            "created_at": int(fields.get(b"created") or 0) // 1000,
            "ended_at": int(fields.get(b"ended") or 0) // 1000,
            "events_url": f"/v1/generations/{generation_id}/events",
        },
    )


def lost_event(subject_id: str, kind: str, about: Mapping[str, Any]) -> WebhookEvent:
    """Return what can be said of something that Redis has lost."""
    error = {"code": "lost", "message": "the log was lost: ask again", "retryable": True}
    data = {"id": subject_id, "object": kind, **about, "status": "failed"}
    return WebhookEvent(f"{kind}.failed", {**data, "error": error})


async def read_record(redis: Client, subject_id: str) -> WebhookRecord | None:
    """Return what is known of a webhook; None: nothing."""
    with translated():
        fields: dict[bytes, bytes] = await redis.hgetall(keys.hook(subject_id))  # type: ignore[misc]
    if not fields:
        return None
    url, secret = fields.get(b"url"), fields.get(b"secret")
    return WebhookRecord(
        kind=fields.get(b"kind", b"generation").decode(),
        state=fields.get(b"state", b"waiting").decode(),
        about=msgspec.json.decode(fields.get(b"about") or b"{}"),
        webhook=Webhook(url.decode(), secret.decode()) if url and secret else None,
        body=fields.get(b"body", b""),
        missing=int(fields.get(b"missing") or 0),
        is_seen=fields.get(b"seen") == b"1",
        owner=fields.get(b"owner", b"").decode(),
    )


def encode_event(event: WebhookEvent) -> bytes:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode({"type": event.type, "timestamp": now, "data": event.data})


def key_of(secret: str) -> bytes:
    """Return the bytes that sign: of `whsec_…` what its base64 says, else the text itself.

    Raises:
        ValueError: what follows `whsec_` is no base64.
    """
    if secret.startswith(SECRET_PREFIX):
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    return secret.encode()


def signed(subject_id: str, webhook: Webhook, body: bytes, at_s: int) -> dict[str, str]:
    """Return the headers of Standard Webhooks for one attempt."""
    message_id = f"msg_{subject_id}"
    content = b".".join((message_id.encode(), str(at_s).encode(), body))
    digest = hmac.new(key_of(webhook.secret), content, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }
