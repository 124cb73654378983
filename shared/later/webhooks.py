"""Webhooks: their records and indexes in Redis, their events, and their signatures.

The subject of a webhook is a generation or a batch. The webhook is registered before its subject is
accepted. When the subject has ended, the webhook becomes due: the code that writes the end notes
this, or else a check of the jobs role finds it. A due record holds the bytes to send, so a delivery
needs nothing else. The jobs role delivers (jobs/webhooks.py); this module knows no HTTP. All keys
carry `{jobs}`.

Owners take turns, so every index is by owner first. An older version writes no owners: its records
are found under the owner "". An older jobs role finds the records of this version in its rounds,
because a record holds its state and its host.

A kind of subject other than generations needs:

    await register(redis, id, "batch", webhook, about, owner=owner)     before it is accepted
    a `Finder` for jobs/webhooks.py                                     returns its end

A kind may also call `make_due` to deliver at once; batches do not.

Delivery is at least once. The header `webhook-id` is the same in every repeat of an event.
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

FIRST_CHECK_S = 10.0  # until the first check of a generation whose end was not noted
FINDER_CHECK_S = 2.0  # until another subject is checked: no process notes the end of a batch
RECORD_KEPT_S = 10 * 86_400.0  # until an unchanged record expires; a batch may take seven days
OWNER_CHECKS_PER_S = 100.0  # checks of the waiting webhooks of one owner
SECRET_PREFIX = "whsec_"
# The fields of meta that an event needs. The request, up to a megabyte, is not among them.
EVENT_FIELDS = (
    b"status", b"end", b"model", b"session", b"metadata", b"attempt", b"created", b"ended",
    b"webhook", b"owner",
)  # fmt: skip


class Webhook(msgspec.Struct, frozen=True):
    """The receiver of one event: its URL, and the client's secret."""

    url: str
    secret: str

    @property
    def host(self) -> str:
        """The host and port, by which deliveries are limited."""
        return urlsplit(self.url).netloc.lower()

    def __repr__(self) -> str:
        return "Webhook(…)"  # neither member may appear in a log


class WebhookEvent(NamedTuple):
    """The content of a delivery: a type, for example `generation.completed`, and data."""

    type: str
    data: Mapping[str, Any]


class WebhookRecord(NamedTuple):
    """The record of one webhook."""

    kind: str  # of the subject
    state: str  # waiting, due, done
    about: dict[str, Any]  # data of the event if the subject is lost
    webhook: Webhook | None  # None: delivered or given up
    body: bytes  # the bytes to send; empty while waiting
    missing: int  # checks in a row that did not find the subject
    is_seen: bool  # a check has found the subject before
    owner: str = ""  # empty: an older version wrote the record


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
    """Register a webhook for a subject that will be accepted next.

    Args:
        kind: `generation`, or the name of a `Finder`; such subjects are checked soon and often.
        about: JSON; data of the event if Redis loses the subject. `id` is added.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    fields: list[Any] = [
        "kind", kind, "url", webhook.url, "secret", webhook.secret, "owner", owner,
        "about", msgspec.json.encode(about),
    ]  # fmt: skip
    first_s = FIRST_CHECK_S if kind == "generation" else FINDER_CHECK_S
    call = check_call(subject_id, kind, owner, after_s=first_s, is_new=True, fields=fields)
    await Scripts(redis).run("hook_wait", *call)


def check_call(
    subject_id: str,
    kind: str,
    owner: str,
    *,
    after_s: float,
    is_new: bool = False,
    fields: Sequence[Any] = (),
) -> Call:
    """Return the `hook_wait` call that plans a check of a subject in `after_s`."""
    names = [keys.hook(subject_id), keys.HOOKS_WAITING, keys.hooks_clock(owner, kind)]
    apart_ms = round(1_000 / OWNER_CHECKS_PER_S)
    when = [round(after_s * 1000), apart_ms, round(RECORD_KEPT_S * 1000)]
    return names, [subject_id, "NX" if is_new else "XX", *when, *fields]


async def make_due(
    redis: Client, subject_id: str, webhook: Webhook, event: WebhookEvent, *, owner: str = ""
) -> bool:
    """Make the delivery of an ended subject due now. False: it was due or done already.

    Raises:
        Unavailable: Redis did not answer in time.
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
    args = [subject_id, digest, place, round(RECORD_KEPT_S * 1000), *fields]
    return bool(await Scripts(redis).run("hook_end", names, args))


async def end_generation(redis: Client, generation_id: str) -> bool:
    """Make the webhook of an ended generation due, with the end in its meta.

    False: it was due already, the generation is unfinished, or it has no webhook.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    fields = await read_event_fields(redis, generation_id)
    event = generation_event(generation_id, fields)
    if event is None or not fields.get(b"webhook"):
        return False
    owner = fields.get(b"owner", b"").decode()
    return await make_due(
        redis, generation_id, decode_webhook(fields[b"webhook"]), event, owner=owner
    )


async def read_event_fields(redis: Client, generation_id: str) -> dict[bytes, bytes]:
    """Return the fields of meta that an event needs; empty: the generation is absent.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    with translated():
        found = await redis.hmget(keys.meta(generation_id), list(EVENT_FIELDS))  # type: ignore[misc]
    pairs = zip(EVENT_FIELDS, found, strict=True)
    return {name: value for name, value in pairs if value is not None}


def generation_event(generation_id: str, fields: Mapping[bytes, bytes]) -> WebhookEvent | None:
    """Return the event of an ended generation, from fields of its meta; None: unfinished."""
    raw = fields.get(b"end")
    if not raw:
        return None
    ending = msgspec.json.decode(raw)
    return WebhookEvent(
        f"generation.{ending['status']}",
        {
            "id": generation_id,
            "object": "generation",
            "status": ending["status"],
            "model": fields.get(b"model", b"").decode(),
            "session": fields.get(b"session", b"").decode() or None,
            "finish_reason": ending.get("finish_reason"),
            "usage": ending.get("usage"),
            "error": ending.get("error"),
            "metadata": msgspec.json.decode(fields.get(b"metadata") or b"{}"),
            "attempt": int(fields.get(b"attempt") or 0),
            "created_at": int(fields.get(b"created") or 0) // 1000,
            "ended_at": int(fields.get(b"ended") or 0) // 1000,
            "events_url": f"/v1/generations/{generation_id}/events",
        },
    )


def lost_event(subject_id: str, kind: str, about: Mapping[str, Any]) -> WebhookEvent:
    """Return the event of a subject that Redis has lost."""
    error = {"code": "lost", "message": "the log was lost: ask again", "retryable": True}
    data = {"id": subject_id, "object": kind, **about, "status": "failed"}
    return WebhookEvent(f"{kind}.failed", {**data, "error": error})


async def read_record(redis: Client, subject_id: str) -> WebhookRecord | None:
    """Return the record of a webhook; None: absent."""
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


async def drop(redis: Client, subject_id: str) -> bool:
    """Delete a webhook, in whatever state; False: there was none. An attempt under way goes on.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    with translated():
        place = await redis.hget(keys.hook(subject_id), "place")  # type: ignore[misc]
        pipeline = redis.pipeline(transaction=False)
        pipeline.delete(keys.hook(subject_id))
        pipeline.zrem(keys.HOOKS_WAITING, subject_id)
        pipeline.zrem(keys.HOOKS_DEAD, subject_id)
        if place:
            pipeline.zrem(keys.hooks_due(place.decode()), subject_id)
        was_there, *_ = await pipeline.execute()
    return bool(was_there)


def encode_event(event: WebhookEvent) -> bytes:
    """Return the body of a delivery."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode({"type": event.type, "timestamp": now, "data": event.data})


def key_of(secret: str) -> bytes:
    """Return the signing key: the decoded base64 after `whsec_`, or else the text itself.

    Raises:
        ValueError: the text after `whsec_` is not base64.
    """
    if secret.startswith(SECRET_PREFIX):
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    return secret.encode()


def signed(subject_id: str, webhook: Webhook, body: bytes, at_s: int) -> dict[str, str]:
    """Return the headers of Standard Webhooks for one attempt at the Unix time `at_s`."""
    message_id = f"msg_{subject_id}"
    content = b".".join((message_id.encode(), str(at_s).encode(), body))
    digest = hmac.new(key_of(webhook.secret), content, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }
