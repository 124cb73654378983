"""Finds the generation that a reader asks for, and where the reader goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.datastructures import Headers as RequestHeaders
from starlette.types import Scope

from api.hub.hub import Hub
from api.hub.meta_lookup import Read
from shared.errors import NotFound, Unavailable
from shared.log.ids import START, EventId, is_generation_id, parse_cursor
from shared.log.records import Meta
from shared.log.store import Store

COME_BACK_S = 2.0  # what Redis has lost is waited for, for a reader that knows it
LOOK_AGAIN_S = 0.1
LOOK_S = 2.0  # past it Redis counts as away: requests that connect anew wait for one another


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
