"""Finds the generation that a client names, and the cursor from which the client reads on.

Invariant: a generation that the caller may not see (shared/log/visibility.py) is answered exactly
like an absent generation, in every step and after the same time. Knows no route and no dialect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.datastructures import Headers as RequestHeaders
from starlette.types import Scope

from api.hub.hub import Hub
from api.hub.meta_lookup import ReadMeta
from shared.config.credentials import Identity
from shared.errors import NotFound, Unavailable
from shared.log.ids import START, EventId, is_generation_id, parse_cursor
from shared.log.records import Meta
from shared.log.store import Store
from shared.log.visibility import is_visible

# A client with a cursor waits this long for a generation that Redis has lost: the worker that holds
# the generation is about to write it again.
RESTORE_WAIT_S = 2.0
REREAD_INTERVAL_S = 0.1  # between two reads of meta during `RESTORE_WAIT_S`
# After this time without an answer Redis counts as down, and the node's own copy serves. It is
# short because clients that reconnect after a node's death arrive in one burst and share one read.
META_READ_S = 2.0


async def find_generation(
    hub: Hub,
    store: Store,
    viewer: str | Identity,
    generation_id: str,
    cursor: EventId = START,
    *,
    is_reader: bool = False,
) -> Meta:
    """Return the meta of a generation that `viewer` may see.

    The meta comes from Redis. It comes from the node's own copy while Redis is down, and also when
    Redis has lost a generation that is not sealed yet.

    A client with a cursor has read this generation on some node. For such a client an absent
    generation is read again for up to `RESTORE_WAIT_S`: its worker is about to write it again, and
    a 404 would make the client give up.

    Args:
        viewer: who asks; or an owner, who sees the own generations and no others.
        cursor: the last event that the client has seen; `START`: none.
        is_reader: the caller will read the log, and the log corrects a meta that is a moment old.
            So all such callers that arrive together share one read of Redis.

    Raises:
        NotFound: the id is malformed, the generation is absent or sealed, or the viewer may not see
            it.
        Unavailable: Redis did not answer within `META_READ_S`, and this node has no copy.
    """
    if not is_generation_id(generation_id):
        raise NotFound()
    read = hub.look_up_meta if is_reader else store.meta
    meta = await _read_visible(hub, read, viewer, generation_id)
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + RESTORE_WAIT_S
    while meta is None and cursor != START and clock() < deadline_s:
        await asyncio.sleep(REREAD_INTERVAL_S)
        meta = await _read_visible(hub, read, viewer, generation_id)
    if meta is None:
        raise NotFound()
    return meta


async def _read_visible(
    hub: Hub, read: ReadMeta, viewer: str | Identity, generation_id: str
) -> Meta | None:
    """Return meta from Redis or from this node; None: there is none that `viewer` may see."""
    try:
        async with asyncio.timeout(META_READ_S):
            meta = await read(generation_id) or hub.find_unfinished_meta(generation_id)
    except (Unavailable, TimeoutError) as exc:
        meta = hub.find_held_meta(generation_id)
        if not is_visible(meta, viewer):
            raise Unavailable("Redis did not answer in time") from exc
    return meta if is_visible(meta, viewer) else None


def read_query(scope: Scope) -> dict[str, str]:
    """Return the query's parameters; the last value of a repeated parameter counts."""
    raw = scope.get("query_string", b"").decode("latin-1")
    return dict(parse_qsl(raw, keep_blank_values=True, errors="surrogateescape"))


# The names under which clients send a cursor in the query; polyfills of EventSource use the others.
CURSOR_NAMES = ("last_event_id", "lastEventId", "Last-Event-ID", "last-event-id")


def read_cursor(headers: RequestHeaders, query: Mapping[str, str]) -> EventId:
    """Return the cursor: from the header `Last-Event-ID`, else the query, else `START`.

    In the query the first of `CURSOR_NAMES` that is present and not empty counts.

    Raises:
        CursorInvalid: the header or the query has a value that is not an event id. A bad value in
            the query is refused even when the header has a good one.
    """
    values = [query[name] for name in CURSOR_NAMES if query.get(name)]
    cursors = [parse_cursor(value) for value in values]
    from_query = cursors[0] if cursors else START
    header_value = headers.get("last-event-id")
    if header_value is None:
        return from_query
    return parse_cursor(header_value) if header_value else START
