"""Streams one generation's log as an HTTP response, in any dialect.

This module joins a reader to the hub, and ends the response as the reader's outcome demands. If the
server can finish a response without its handler (api/transport/http_handover.py), the handler
returns while the answer goes on; on any other server the handler waits, and the bytes are the same.
Invariant: a body is finished only after the log's `end`, or after the last event of its dialect.
Every other outcome breaks the connection off, so that the client sees an error and not an end.
Knows no path and no query.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from api.hub.contracts import ReadingOutcome
from api.hub.hub import Hub
from api.hub.relay import Relay
from api.readers.disconnect import DisconnectWatcher
from api.readers.encoded_body import EncodedBody
from api.readers.expiry import break_off_at_expiry
from api.readers.http_reader import Subscriber
from api.readers.place import Place, take_place
from api.readers.stream_encoding import choose_encoding, encoding_headers, new_body
from api.transport.extensions import HANDOVER, OUTCOME, READER_PLACE, TRANSPORT, WIRE, break_off
from api.transport.http_handover import HandedOver
from shared.log.fold import Dialect, Headers
from shared.log.ids import START, EventId
from shared.log.records import Meta

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where an answer begins.

    Attributes:
        cursor: every entry after this one is sent.
        head: sent at once, before the first entry.
        prefix: sent immediately before the first bytes of the log, in the same chunk.
        headers: further headers of the response.
        is_empty: nothing is left to send; the answer is 204.
    """

    cursor: EventId = START
    head: bytes = b""
    prefix: bytes = b""
    headers: Headers = ()
    is_empty: bool = False


Begin = Callable[[Relay], Awaitable[Beginning]]


async def stream(
    hub: Hub,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    meta: Meta,
    dialect: Dialect,
    headers: Headers = (),
    begin: Begin | None = None,
) -> None:
    """Answer with the log of one generation in `dialect`.

    Returns when the answer is over, or when the server has taken over its rest.

    Args:
        headers: sent beside the dialect's own headers.
        begin: called with the relay; returns where the answer begins. Default: the dialect's
            opening, and then every entry.

    Raises:
        RequestError, Unavailable: as `take_place`, `Hub.reading` and `begin`, before anything was
            sent.
    """
    place = await take_place(scope)
    async with hub.reading(meta) as relay:
        if begin is None:
            beginning = Beginning(head=relay.encoded_log(dialect).opening)
        else:
            beginning = await begin(relay)
        encoding = choose_encoding(scope, hub.encodings, dialect)
        own: Headers = ()
        if not beginning.is_empty:
            own = stream_headers(dialect, hub.settings.heartbeat_s)
            own = [*own, *encoding_headers(hub.encodings, dialect, encoding)]
        head = {
            "type": "http.response.start",
            "status": 204 if beginning.is_empty else 200,
            "headers": [*own, *beginning.headers, *headers],
        }
        has_body = scope["method"] != "HEAD" and not beginning.is_empty
        body = None
        if has_body and encoding is not None:
            # Before the first await after the choice: the bound of compressors must count it.
            body = new_body(scope, hub.encodings, encoding)
        await send(head)
        if not has_body:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        if beginning.head:
            first = beginning.head
            first = first if body is None else body.aside_piece(first)
            await send({"type": "http.response.body", "body": first, "more_body": True})
        if HANDOVER in scope.get("extensions", {}):
            DetachedAnswer(hub, relay, scope, dialect, beginning, body=body)
            if place is not None:
                place.keep()
            return
        outcome = await _read(hub, relay, scope, receive, send, dialect, beginning, body=body)
    await finish(scope, receive, send, outcome)


class DetachedAnswer:
    """An answer whose handler has returned. It ends the response and releases the relay, once."""

    __slots__ = ("_answer", "_expiry", "_hub", "_place", "_relay", "_subscriber")

    def __init__(
        self,
        hub: Hub,
        relay: Relay,
        scope: Scope,
        dialect: Dialect,
        beginning: Beginning,
        *,
        body: EncodedBody | None,
    ) -> None:
        self._hub = hub
        self._relay = relay
        self._place: Place | None = scope.get(READER_PLACE)
        self._subscriber = _subscribe(
            hub, relay, scope, None, self._over, dialect, beginning, body=body
        )
        hub.hold_on(relay)  # the handler releases its own hold when it returns
        self._answer: HandedOver = scope["extensions"][HANDOVER](self._subscriber)
        self._expiry = break_off_at_expiry(scope, self._subscriber)

    def _over(self, outcome: ReadingOutcome) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        if self._place is not None:
            self._place.give_back()
        _dismiss(self._hub, self._relay, self._subscriber)
        self._hub.release(self._relay)
        if outcome is ReadingOutcome.ENDED:
            self._answer.end()
        elif outcome is not ReadingOutcome.LEFT:
            logger.info("reader broken off", extra={"outcome": outcome.value})
            self._answer.break_off()


async def _read(
    hub: Hub,
    relay: Relay,
    scope: Scope,
    receive: Receive,
    send: Send,
    dialect: Dialect,
    beginning: Beginning,
    *,
    body: EncodedBody | None,
) -> ReadingOutcome:
    over: asyncio.Future[ReadingOutcome] = asyncio.get_running_loop().create_future()

    def on_over(outcome: ReadingOutcome) -> None:
        if not over.done():
            over.set_result(outcome)

    subscriber = _subscribe(hub, relay, scope, send, on_over, dialect, beginning, body=body)
    departure = DisconnectWatcher(receive, subscriber.left)
    expiry = break_off_at_expiry(scope, subscriber)
    try:
        return await over
    finally:
        if expiry is not None:
            expiry.cancel()
        subscriber.left()
        departure.close()
        _dismiss(hub, relay, subscriber)


def _subscribe(
    hub: Hub,
    relay: Relay,
    scope: Scope,
    send: Send | None,
    on_over: Callable[[ReadingOutcome], None],
    dialect: Dialect,
    beginning: Beginning,
    *,
    body: EncodedBody | None,
) -> Subscriber:
    extensions = scope.get("extensions", {})
    subscriber = Subscriber(
        relay,
        dialect,
        send,
        hub,
        on_over,
        cursor=beginning.cursor,
        transport=extensions.get(TRANSPORT),
        wire=extensions.get(WIRE),
        prefix=beginning.prefix,
        body=body,
    )
    hub.admit(subscriber, dialect.name)
    hub.heartbeats.put(subscriber, hub.now() + hub.settings.heartbeat_s)
    try:
        relay.join(subscriber)
    except BaseException:
        _dismiss(hub, relay, subscriber)
        raise
    return subscriber


def _dismiss(hub: Hub, relay: Relay, subscriber: Subscriber) -> None:
    relay.leave(subscriber)
    hub.dismiss(subscriber)


async def finish(scope: Scope, receive: Receive, send: Send, outcome: ReadingOutcome) -> None:
    """End the response: finish the body after ENDED, break the connection off otherwise.

    After LEFT there is nothing to do.
    """
    if outcome is ReadingOutcome.ENDED:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    elif outcome is not ReadingOutcome.LEFT:
        logger.info("reader broken off", extra={"outcome": outcome.value})
        scope[OUTCOME] = outcome
        break_off(scope)
        await DisconnectWatcher.wait(receive)


def stream_headers(dialect: Dialect, heartbeat_s: float) -> list[tuple[bytes, bytes]]:
    """Return the headers of a stream: no proxy may store, buffer or change the body.

    Args:
        heartbeat_s: the longest silence of the stream, s; a client finds a dead connection by it.
    """
    return [
        (b"content-type", dialect.content_type),
        (b"cache-control", b"no-store, no-transform"),
        (b"x-accel-buffering", b"no"),
        (b"x-heartbeat-s", heartbeat_header(heartbeat_s)),
        *dialect.headers,
    ]


def heartbeat_header(heartbeat_s: float) -> bytes:
    """Return the value of `X-Heartbeat-S`: decimal seconds, `15` or `0.5`."""
    return b"%.12g" % heartbeat_s
