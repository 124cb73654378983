"""GET /ds/v1/stream/generations/{id}: a generation, read as a closed-at-its-end stream of JSON.

Read only: a generation is written by its worker or its producer. The owner rules are those of
/v1/generations/{id}. Nothing is written for a read, so a generation lives no longer by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.deadline import answer_deadline
from api.dialects.durable_streams.fold import (
    EVENT_STREAM,
    DurableStreamFold,
    event_id_of,
    place_of,
    value_of,
)
from api.dialects.durable_streams.live import READ_BYTES
from api.dialects.durable_streams.replies import (
    NOT_CACHED,
    SECURITY,
    etag_of,
    page_reply,
    place_headers,
    refusal_of,
    reply,
)
from api.dialects.durable_streams.request import ReadQuery, read_query
from api.hub.contracts import ReadingOutcome
from api.hub.hub import LOG_READ_S
from api.hub.relay import Relay
from api.node import Node
from api.readers.disconnect import DisconnectWatcher
from api.readers.expiry import wait_s_max
from api.readers.http_stream import Beginning, stream
from api.readers.log_waiter import Waiter
from api.readers.lookup import find_generation
from api.readers.place import take_place
from api.transport.extensions import IDENTITY
from shared.errors import Expired, Unavailable
from shared.log.event_bytes import END_PREFIX
from shared.log.ids import START, EventId
from shared.log.records import Entry, Meta
from shared.streams.content import JSON_TYPE, join

PAGE_ENTRIES = 2_000


class Page(NamedTuple):
    """Some events of a log, and whether the log had no more of them."""

    entries: list[Entry]
    is_at_tail: bool


class GenerationStreamRoutes:
    """The handler of /ds/v1/stream/generations/{id}."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def read(self, request: Request) -> ASGIApp:
        """GET and HEAD."""
        node = self.node
        query = read_query(request.query_params)
        cursor = event_id_of(query.place) if query.place else START
        async with answer_deadline():
            meta = await find_generation(
                node.hub, node.store, node.identity(request), request.path_params["id"],
                cursor, is_reader=True,
            )  # fmt: skip
        if request.method == "HEAD":
            return await self._head(request, meta)
        if query.place is None:
            cursor = await self._top(request, meta)
        if query.live == "sse":
            return await self._event_stream(request, meta, cursor)
        if query.place is None and not query.live:
            return _page(request, query, Page([], is_at_tail=True), cursor, meta)
        page = await self._entries(meta, cursor)
        if page is not None and not page.entries and query.live and not meta.is_ended:
            await self._wait(request, meta, cursor)
            page = await self._entries(meta, cursor)
        if page is None:
            return refusal_of("lost")
        return _page(request, query, page, cursor, meta)

    async def _entries(self, meta: Meta, cursor: EventId) -> Page | None:
        """Return a page behind the cursor; None: the log does not have the cursor.

        Raises:
            Expired: the generation has ended, and its log is gone.
        """
        async with answer_deadline():
            found = await self.node.store.page(meta.generation_id, cursor, PAGE_ENTRIES)
        if meta.is_ended and not found:
            raise Expired()
        if cursor != START:
            if not found or found[0][0] != cursor:
                return None
        is_last, size, page = len(found) < PAGE_ENTRIES, 0, []
        for event_id, raw in found if cursor == START else found[1:]:
            if size >= READ_BYTES:
                is_last = False
                break
            page.append((event_id, raw))
            size += len(raw)
        return Page(page, is_at_tail=is_last)

    async def _wait(self, request: Request, meta: Meta, cursor: EventId) -> None:
        """Wait for an event behind the cursor."""
        await take_place(request.scope)
        wait_s = min(self.node.settings.stream_poll_s, wait_s_max(request.scope.get(IDENTITY)))
        await self._until(
            request, meta, lambda relay: relay.is_over or relay.feed.top > cursor, wait_s
        )

    async def _top(self, request: Request, meta: Meta) -> EventId:
        """Return the id of the last event.

        Raises:
            Unavailable: the log could not be read in time.
        """
        top = await self._until(request, meta, lambda relay: relay.feed.is_up_to_date, LOG_READ_S)
        if top is None:
            raise Unavailable("the log could not be read in time")
        return top

    async def _until(
        self, request: Request, meta: Meta, condition: Callable[[Relay], bool], wait_s: float
    ) -> EventId | None:
        """Wait until the copy of the log fulfils a condition; return its top; None: too late."""
        hub = self.node.hub
        async with hub.reading(meta) as relay:
            with Waiter(relay, hub.now()) as waiter:
                departure = DisconnectWatcher(
                    request.receive, lambda: waiter.break_off(ReadingOutcome.LEFT)
                )
                hub.admit(waiter, "long_poll")
                try:
                    async with asyncio.timeout(wait_s):
                        await waiter.until(lambda: condition(relay))
                except TimeoutError:
                    return None
                finally:
                    departure.close()
                    hub.dismiss(waiter)
                return relay.feed.top

    async def _head(self, request: Request, meta: Meta) -> Response:
        place = place_of(await self._top(request, meta))
        headers = place_headers(place, is_closed=meta.is_ended)
        headers |= {
            "cache-control": NOT_CACHED,
            "etag": etag_of("-1", place, is_closed=meta.is_ended),
        }
        return reply(200, headers, media=JSON_TYPE)

    async def _event_stream(self, request: Request, meta: Meta, cursor: EventId) -> ASGIApp:
        page = await self._entries(meta, cursor) if cursor != START else Page([], is_at_tail=False)
        if page is None:
            return refusal_of("lost")
        headers = [(key.encode(), value.encode()) for key, value in SECURITY.items()]
        is_at_end = meta.is_ended and cursor != START and not page.entries
        control = DurableStreamFold(meta).control(cursor, is_closed=is_at_end)

        async def begin(relay: Relay) -> Beginning:
            return Beginning(cursor=cursor, head=control)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await stream(
                self.node.hub, scope, receive, send,
                meta=meta, dialect=EVENT_STREAM, headers=headers, begin=begin,
            )  # fmt: skip

        return app


def _page(request: Request, query: ReadQuery, page: Page, cursor: EventId, meta: Meta) -> Response:
    """Return the response of a catch-up read, or of a long poll that is over."""
    entries = page.entries
    place = place_of(entries[-1][0] if entries else cursor)
    is_ended = entries[-1][1].startswith(END_PREFIX) if entries else meta.is_ended
    return page_reply(
        request.headers.get("if-none-match", ""),
        query,
        place,
        join(JSON_TYPE, (value_of(*entry) for entry in entries)),
        has_entries=bool(entries),
        is_at_tail=page.is_at_tail,
        is_closed=is_ended and page.is_at_tail,
        content_type=JSON_TYPE,
    )
