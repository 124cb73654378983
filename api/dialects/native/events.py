"""GET /v1/generations/{id}/events, and every native stream: SSE, NDJSON, long poll.

Negotiates the transport and the cursor, and answers the rows of the status table; the stream itself
is api/readers/http_stream.py's.
Source: docs/protocol.md, "HTTP" and its status table.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping

from starlette.datastructures import Headers as RequestHeaders
from starlette.types import Receive, Scope, Send

from api.dialects.native import long_poll as longpoll
from api.dialects.native.fold import NDJSON, SSE
from api.errors import unavailable
from api.hub.hub import Hub
from api.hub.relay import Relay
from api.intake.negotiation import choose_form
from api.readers.disconnect import Departure
from api.readers.http_stream import Beginning, stream, stream_headers
from api.readers.lookup import find, read_cursor, read_query
from api.transport.extensions import break_off
from shared.errors import RequestError, Unavailable
from shared.log.fold import Headers
from shared.log.ids import START, EventId
from shared.log.records import Meta
from shared.log.store import Store

DIALECTS = {"sse": SSE, "ndjson": NDJSON}
RETRY_MS = (500, 1_500)  # jittered, lest the readers of a node that dies come back in one second


async def events(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    hub: Hub,
    store: Store,
    owner: str,
    generation_id: str,
    find_other: Callable[[], Awaitable[Meta]] | None = None,
) -> None:
    """Answer GET (or HEAD) /v1/generations/{id}/events for `owner`.

    Args:
        find_other: finds a log that is no generation's, and judges who may read it.

    Raises:
        RequestError: before anything was sent.
    """
    headers, query = RequestHeaders(scope=scope), read_query(scope)
    transport, wait_s = choose_transport(headers.get("accept", ""), query)
    cursor = read_cursor(headers, query)
    try:
        if find_other is not None:
            meta = await find_other()
        else:
            meta = await find(hub, store, owner, generation_id, cursor, is_reader=True)
        if transport == "long_poll":
            reply = await longpoll.long_poll(hub, meta, cursor, wait_s, receive=receive)
            await _respond_json(scope, send, reply)
        else:
            await stream_events(
                hub, scope, receive, send, meta=meta, cursor=cursor, transport=transport
            )
    except (RequestError, Unavailable) as exc:
        error = unavailable() if isinstance(exc, Unavailable) else exc
        if error.status != 503 or transport != "sse" or cursor == START:
            raise error from exc
        await _send_away(scope, receive, send)


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
    """Answer with the native stream of one generation, after `cursor`; returns when it is over.

    Args:
        transport: `sse` or `ndjson`.
        extra_headers: sent with the response's own.

    Raises:
        RequestError, Unavailable: before anything was sent.
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


async def _send_away(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell a native EventSource to come back: a 503 would end it for good."""
    headers = stream_headers(SSE)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["method"] == "HEAD":
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    await send({"type": "http.response.body", "body": retry_line() + b"\n", "more_body": True})
    break_off(scope)
    await Departure.wait(receive)


async def _respond_json(scope: Scope, send: Send, body: bytes) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    body = b"" if scope["method"] == "HEAD" else body
    await send({"type": "http.response.body", "body": body, "more_body": False})


def retry_line() -> bytes:
    return b"retry: %d\n" % random.randint(*RETRY_MS)


# What was asked for


def choose_transport(accept: str, query: Mapping[str, str]) -> tuple[str, float]:
    """Return the transport that is asked for, and how long a long poll may wait, s.

    Raises:
        RequestError: 400, `wait` is no number from 0 to 60; 406, nothing that can be served.
    """
    if "wait" in query:
        return "long_poll", longpoll.parse_wait(query["wait"])
    form = choose_form(accept, "sse")
    return ("long_poll" if form == "json" else form), 0.0
