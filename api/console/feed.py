"""The server-sent events of one open console: the whole picture first, then what changes.

The page that does not read is cut as a slow reader of an answer is. The stream ends when this node
drains and when the credentials end; the page comes back by itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping

from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.console.guard import operator_of
from api.console.limits import SEND_S
from api.console.picture import Parts, encode_event, parts_of, rows_part
from api.console.rows import Filter
from api.console.sampler import Sampler
from api.console.watcher import Watcher
from api.hub.contracts import ReadingOutcome
from api.node import Node
from api.transport.extensions import break_off
from shared.config.credentials import Identity

log = logging.getLogger(__name__)


class ConsoleFeed:
    """The handler of GET /v1/console."""

    def __init__(self, node: Node, sampler: Sampler) -> None:
        self._node = node
        self._sampler = sampler
        self._encoded: tuple[int, Mapping[str, bytes]] = (-1, {})

    async def get(self, request: Request) -> ASGIApp:
        """GET /v1/console: the events of a console with the filter of the query."""
        identity = operator_of(self._node, request)
        self._node.refuse_while_draining()
        wanted = Filter.read(request.query_params)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers={"cache-control": "no-store"})
        opened = self._sampler.watching(wanted)
        watcher = await opened.__aenter__()  # before the head, so that a refusal has a status

        async def stream() -> AsyncIterator[bytes]:
            async for event in self._events(watcher, identity):
                yield event

        response = EventSourceResponse(stream(), send_timeout=SEND_S)

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await response(scope, receive, send)
            except* SendTimeoutError:
                self._node.hub.counters.cuts += 1
                log.info("reader broken off", extra={"outcome": ReadingOutcome.CUT.value})
                break_off(scope)
            finally:
                await opened.__aexit__(None, None, None)

        return respond

    async def _events(self, watcher: Watcher, identity: Identity) -> AsyncIterator[bytes]:
        parts, seen = Parts(), watcher.opened_at
        hello = {"may_read": identity.reads_everything, "as": identity.owner}
        yield encode_event("hello", hello)
        while self._may_go_on(identity):
            try:
                seen = await self._sampler.next_picture(seen)
            except TimeoutError:
                if not self._sampler.is_running:
                    return  # a defect, which the log has; the page comes back and starts it again
                continue  # Redis is away; the picture says so when it comes
            rows = rows_part(self._sampler.rows_of(watcher), self._sampler.now_ms)
            found = {**self._parts(), "rows": encode_event("rows", rows)}
            events = [*parts.changed(found), parts.new_points(self._sampler.trends)]
            yield b"".join(events)

    def _parts(self) -> Mapping[str, bytes]:
        """Return the parts that all pages share, encoded once for each picture."""
        ticks, encoded = self._encoded
        if ticks != self._sampler.ticks:
            encoded = {
                name: encode_event(name, data) for name, data in parts_of(self._sampler).items()
            }
            self._encoded = self._sampler.ticks, encoded
        return encoded

    def _may_go_on(self, identity: Identity) -> bool:
        ends_at = identity.ends_at(time.time())
        return (
            not self._node.is_draining
            and not self._node.authenticator.is_key_revoked(identity)
            and (ends_at is None or time.time() < ends_at)
        )
