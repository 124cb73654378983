"""GET /v1/generations/{id}/events, and every native stream: SSE, NDJSON, long poll.

Reads the transport and the cursor from the request, and answers with the statuses of the status
table. api/readers/http_stream.py writes the stream. Source: docs/protocol.md, "HTTP" and its status
table.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from starlette.datastructures import Headers as RequestHeaders
from starlette.types import Receive, Scope, Send

from api.dialects.native.fold import NDJSON, SSE
from api.dialects.native.long_poll import long_poll, parse_wait
from api.errors import TooManyConnections, unavailable
from api.hub.hub import Hub
from api.hub.relay import Relay
from api.intake.negotiation import choose_form
from api.readers.disconnect import DisconnectWatcher
from api.readers.expiry import wait_s_max
from api.readers.http_stream import Beginning, stream, stream_headers
from api.readers.lookup import find_generation, read_cursor, read_query
from api.readers.place import take_place
from api.transport.extensions import IDENTITY, break_off
from shared.config.credentials import Identity
from shared.errors import RequestError, Unavailable
from shared.log.fold import Headers
from shared.log.ids import START, EventId
from shared.log.records import Meta
from shared.log.store import Store

DIALECTS = {"sse": SSE, "ndjson": NDJSON}
# The delay before an EventSource reconnects. It is random, so that the readers of a node that died
# do not all reconnect in the same second.
RETRY_MS = (500, 1_500)
# An EventSource beyond its owner's limit of readers first gets an `error` event, and reconnects.
# Its third refusal is HTTP status 429, after which a browser does not reconnect.
REFUSAL_WITH_STATUS = 3


async def respond_with_events(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    hub: Hub,
    store: Store,
    viewer: str | Identity,
    generation_id: str,
    find_other: Callable[[], Awaitable[Meta]] | None = None,
) -> None:
    """Answer GET (or HEAD) /v1/generations/{id}/events for `viewer`.

    Args:
        find_other: finds a log that does not belong to a generation (a batch has one), and checks
            that the viewer may read it.

    Raises:
        RequestError: the request was refused; nothing has been sent.
    """
    headers, query = RequestHeaders(scope=scope), read_query(scope)
    transport, wait_s = choose_transport(headers.get("accept", ""), query)
    cursor = read_cursor(headers, query)
    try:
        if find_other is not None:
            meta = await find_other()
        else:
            meta = await find_generation(hub, store, viewer, generation_id, cursor, is_reader=True)
        if transport == "long_poll":
            wait_s = min(wait_s, wait_s_max(scope.get(IDENTITY)))
            if wait_s:
                await take_place(scope)
            reply = await long_poll(hub, meta, cursor, wait_s, receive=receive)
            await _send_json(scope, send, reply)
        else:
            is_source = transport == "sse" and _is_event_source(headers)
            await take_place(scope, _name_of_reader(scope, generation_id) if is_source else "")
            await stream_events(
                hub, scope, receive, send, meta=meta, cursor=cursor, transport=transport
            )
    except TooManyConnections as exc:
        if not 0 < exc.refusal_count < REFUSAL_WITH_STATUS:
            raise
        await _ask_to_reconnect(hub, scope, receive, send, _refusal_block(exc))
    except (RequestError, Unavailable) as exc:
        error = unavailable() if isinstance(exc, Unavailable) else exc
        if error.status != 503 or transport != "sse" or cursor == START:
            raise error from exc
        await _ask_to_reconnect(hub, scope, receive, send)


async def stream_events(
    hub: Hub,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    meta: Meta,
    cursor: EventId,
    transport: str,
    extra_headers: Headers = (),
) -> None:
    """Answer with the native stream of one generation, after `cursor`.

    Returns when the answer is over or has been handed over to the server.

    Args:
        transport: `sse` or `ndjson`.
        extra_headers: sent beside the usual headers of a stream.

    Raises:
        RequestError: the stream cannot begin; nothing has been sent.
        Unavailable: the log cannot be read now; nothing has been sent.
    """

    async def begin(relay: Relay) -> Beginning:
        return Beginning(
            cursor=cursor,
            prefix=retry_line() if transport == "sse" else b"",
            is_empty=relay.feed.is_ended and cursor == relay.feed.top,
        )

    dialect = DIALECTS[transport]
    await stream(
        hub, scope, receive, send, meta=meta, dialect=dialect, headers=extra_headers, begin=begin
    )


async def _ask_to_reconnect(
    hub: Hub, scope: Scope, receive: Receive, send: Send, said: bytes = b""
) -> None:
    """Begin a stream and break it off. A browser's EventSource reconnects then, not after a 503.

    Args:
        said: a block that is sent before; by default only the delay of the reconnection.
    """
    headers = stream_headers(SSE, hub.settings.heartbeat_s)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["method"] == "HEAD":
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    said = said or retry_line() + b"\n"
    await send({"type": "http.response.body", "body": said, "more_body": True})
    break_off(scope)
    await DisconnectWatcher.wait(receive)


def _is_event_source(headers: Mapping[str, str]) -> bool:
    """Whether a browser asks, whose EventSource shows its page no status and no body of an error.

    Any other client reads them.
    """
    return "sec-fetch-mode" in headers and "text/event-stream" in headers.get("accept", "")


def _name_of_reader(scope: Scope, generation_id: str) -> str:
    """Return a name for an EventSource that stays the same when it reconnects."""
    client = scope.get("client")
    named = f"{generation_id} {client[0] if client else ''}"
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def _refusal_block(error: TooManyConnections) -> bytes:
    """Return the block that tells an EventSource why it gets no events, and when to come back."""
    members = {"code": error.code, "message": error.message, "retryable": error.retryable}
    retry_ms = (error.retry_after_s or 0) * 1000
    return b"retry: %d\nevent: error\ndata: %b\n\n" % (retry_ms, msgspec.json.encode(members))


async def _send_json(scope: Scope, send: Send, body: bytes) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    body = b"" if scope["method"] == "HEAD" else body
    await send({"type": "http.response.body", "body": body, "more_body": False})


def retry_line() -> bytes:
    """Return the SSE line that sets the client's delay before it reconnects."""
    return b"retry: %d\n" % random.randint(*RETRY_MS)


def choose_transport(accept: str, query: Mapping[str, str]) -> tuple[str, float]:
    """Return the transport that the request asks for, and the wait of a long poll in seconds.

    Raises:
        RequestError: 400, `wait` is not a number from 0 to 60; 406, `accept` names nothing that
            can be served.
    """
    if "wait" in query:
        return "long_poll", parse_wait(query["wait"])
    form = choose_form(accept, "sse")
    return ("long_poll" if form == "json" else form), 0.0
