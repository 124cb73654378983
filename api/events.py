"""GET /v1/generations/{id}/events, and every native stream: SSE, NDJSON, long poll.

Negotiates the transport and the cursor, and answers the rows of the status table; the stream itself
is api/stream.py's.
Source: docs/protocol.md, "HTTP" and its status table.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl

from starlette.datastructures import Headers as RequestHeaders
from starlette.types import Receive, Scope, Send

from api import longpoll
from api.dialects.fold import Headers
from api.dialects.native import NDJSON, SSE
from api.errors import break_off, unavailable
from api.hub.departure import Departure
from api.hub.hub import Hub
from api.hub.looks import Read
from api.hub.relay import Relay
from api.negotiation import choose_form
from api.stream import Beginning, stream, stream_headers
from shared.errors import NotFound, RequestError, Unavailable
from shared.ids import START, EventId, is_generation_id, parse_cursor
from shared.outcomes import Meta
from shared.store import Store

DIALECTS = {"sse": SSE, "ndjson": NDJSON}
COME_BACK_S = 2.0  # what Redis has lost is waited for, for a reader that knows it
LOOK_AGAIN_S = 0.1
LOOK_S = 2.0  # past it Redis counts as away: requests that connect anew wait for one another
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


async def find(
    hub: Hub,
    store: Store,
    owner: str,
    generation_id: str,
    cursor: EventId = START,
    *,
    is_reader: bool = False,
) -> Meta:
    """Return the generation if it is the asker's; with Redis away, from what the node holds.

    The same where Redis has lost it and it is not sealed yet. Who has a cursor has seen it on some
    node, so for its sake a lost one is waited for: its worker is about to write it again, and a 404
    would send the reader away for good.

    Somebody else's is absent for the asker, in every step: an answer that came sooner would tell
    him that there is one.

    Args:
        is_reader: it will read the log, which corrects what is a moment old here; so all who come
            at once share one look.

    Raises:
        NotFound, Unavailable.
    """
    if not is_generation_id(generation_id):
        raise NotFound()
    read = hub.look if is_reader else store.meta
    meta = await _look(hub, read, owner, generation_id)
    clock = asyncio.get_running_loop().time
    until_s = clock() + COME_BACK_S
    while meta is None and cursor != START and clock() < until_s:
        await asyncio.sleep(LOOK_AGAIN_S)
        meta = await _look(hub, read, owner, generation_id)
    if meta is None or meta.status == "sealed":
        raise NotFound()
    return meta


async def _look(hub: Hub, read: Read, owner: str, generation_id: str) -> Meta | None:
    """Return the generation as Redis or this node has it; None: there is none of this owner's."""
    try:
        async with asyncio.timeout(LOOK_S):
            meta = await read(generation_id) or hub.unfinished(generation_id)
            return _own(meta, owner)
    except (Unavailable, TimeoutError) as exc:
        meta = _own(hub.known(generation_id), owner)
        if meta is None:
            raise Unavailable("Redis did not answer in time") from exc
        return meta


def _own(meta: Meta | None, owner: str) -> Meta | None:
    return meta if meta is not None and meta.owner == owner else None


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


async def _respond_empty(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def retry_line() -> bytes:
    return b"retry: %d\n" % random.randint(*RETRY_MS)


# What was asked for


def read_query(scope: Scope) -> dict[str, str]:
    """Return the query's parameters; of a repeated one the last counts."""
    raw = scope.get("query_string", b"").decode("latin-1")
    return dict(parse_qsl(raw, keep_blank_values=True, errors="surrogateescape"))


def read_cursor(headers: RequestHeaders, query: Mapping[str, str]) -> EventId:
    """Return where to read on from: the header, else the query, else the start.

    Raises:
        CursorInvalid: one of them is there and is not an event id; also the query, where the
            header counts.
    """
    asked = query.get("last_event_id", "")
    from_query = parse_cursor(asked) if asked else START
    sent = headers.get("last-event-id")
    if sent is None:
        return from_query
    return parse_cursor(sent) if sent else START


def choose_transport(accept: str, query: Mapping[str, str]) -> tuple[str, float]:
    """Return the transport that is asked for, and how long a long poll may wait, s.

    Raises:
        RequestError: 400, `wait` is no number from 0 to 60; 406, nothing that can be served.
    """
    if "wait" in query:
        return "long_poll", longpoll.parse_wait(query["wait"])
    form = choose_form(accept, "sse")
    return ("long_poll" if form == "json" else form), 0.0
