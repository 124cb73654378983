"""/ag-ui/{agent}: runs of AG-UI's clients. An agent is a model.

    POST …/{agent}                     RunAgentInput; the answer is the run
    GET  …/{agent}/runs/{id}/stream    the run from any event on
    POST …/{agent}/runs/{id}/cancel    end it

`id` is the generation's id (`X-Generation-Id`), or the client's `runId` with `?threadId=`. The
events are those of api/dialects/ag_ui/builder.py. Source: docs/dialects/ag-ui.md.
"""

from __future__ import annotations

import functools
import re

from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from api.deadline import answer_deadline
from api.dialects.ag_ui.fold import AG_UI, AG_UI_PROTO, PROTO
from api.dialects.ag_ui.request import parse_ag_ui
from api.dialects.ag_ui.run import run_key
from api.dialects.native.events import retry_line
from api.dialects.prompt import accept_post
from api.errors import request_error
from api.hub.hub import Hub
from api.hub.relay import Relay
from api.intake.negotiation import choose_media_type
from api.node import Node
from api.readers.chunk_number import locate
from api.readers.http_stream import Begin, Beginning, stream
from api.readers.lookup import CURSOR_NAMES, find_generation, read_query
from api.response import json_response
from shared.errors import NotFound, RequestError
from shared.log.fold import Dialect
from shared.log.ids import GENERATION_PREFIX, START, EventId, is_generation_id
from shared.log.records import Meta
from shared.queue.endings import cancel

_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
_FORMS = {"text/event-stream": AG_UI, PROTO: AG_UI_PROTO}


class AgUiRoutes:
    """The handlers of the paths below /ag-ui."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def run(self, request: HttpRequest) -> ASGIApp:
        """POST /ag-ui/{agent}."""
        dialect = choose_dialect(request.headers)
        parse = functools.partial(parse_ag_ui, request.path_params["agent"])
        meta, _ = await accept_post(self.node, request, parse)
        return self._stream(meta, dialect)

    async def stream(self, request: HttpRequest) -> ASGIApp:
        """GET /ag-ui/{agent}/runs/{id}/stream, after the event of `Last-Event-ID`."""
        dialect, seen = choose_dialect(request.headers), read_seen(request)
        identity = self.node.identity(request)
        generation_id = await self._generation_id(request)
        hub, store = self.node.hub, self.node.store
        # A client that has seen an event has seen the run: wait if Redis has just lost it.
        cursor = START if seen is None else EventId(1, 1)
        meta = await find_generation(hub, store, identity, generation_id, cursor, is_reader=True)
        begin = functools.partial(begin_after, hub, dialect, -1 if seen is None else seen)
        return self._stream(meta, dialect, begin)

    async def cancel(self, request: HttpRequest) -> ASGIApp:
        """POST /ag-ui/{agent}/runs/{id}/cancel."""
        identity = self.node.identity(request)
        generation_id = await self._generation_id(request)
        async with answer_deadline():
            before = await self.node.meta_to_end(generation_id, identity)
            by = self.node.asker(identity, before)
            meta = await cancel(self.node.store, before.generation_id, by=by) or before
        return json_response({"id": meta.generation_id, "status": meta.status}, 202)

    async def _generation_id(self, request: HttpRequest) -> str:
        """Return the generation that the path names.

        Raises:
            NotFound: the caller has no such run in the thread of the query.
            Unavailable: Redis did not answer in time.
        """
        name = request.path_params["id"]
        if name.startswith(GENERATION_PREFIX) and is_generation_id(name):
            return str(name)
        thread_id = read_query(request.scope).get("threadId", "")
        async with answer_deadline():
            owner = self.node.owner(request)
            found = await self.node.acceptor.find(owner, run_key(thread_id, name))
        if found is None:
            raise NotFound("run: name a generation, or a runId with ?threadId=")
        return found

    def _stream(self, meta: Meta, dialect: Dialect, begin: Begin | None = None) -> ASGIApp:
        headers = [(b"x-generation-id", meta.generation_id.encode())]

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await stream(
                self.node.hub, scope, receive, send,
                meta=meta, dialect=dialect, headers=headers, begin=begin,
            )  # fmt: skip

        return answer


async def begin_after(hub: Hub, dialect: Dialect, seen: int, relay: Relay) -> Beginning:
    """Begin an answer after event number `seen`; -1: at the start.

    Raises:
        RequestError: `stream_reset`, there is no such place.
        Unavailable: the log could not be read in time.
    """
    place = await locate(hub, relay, dialect, seen + 1)
    log = relay.encoded_log(dialect)
    is_empty = log.is_finished and seen + 1 == log.chunks
    prefix = retry_line() if dialect is AG_UI else b""
    # The first bytes of the answer carry the prefix: the rest of an entry, or the next entry.
    head = prefix + place.head if place.head else b""
    return Beginning(place.cursor, head, b"" if head else prefix, is_empty=is_empty)


def choose_dialect(headers: Headers) -> Dialect:
    """Return the form of the events that the client asks for, otherwise server-sent events."""
    try:
        return _FORMS[choose_media_type(headers.get("accept"), tuple(_FORMS))]
    except RequestError:  # neither form is acceptable; servers of AG-UI ignore that
        return AG_UI


def read_seen(request: HttpRequest) -> int | None:
    """Return the number of the last event that the client has seen; None: none.

    Raises:
        RequestError: 400, not a number.
    """
    query = read_query(request.scope)
    named = [query[name] for name in CURSOR_NAMES if query.get(name)]
    value = request.headers.get("last-event-id") or next(iter(named), "")
    if not value:
        return None
    if _NUMBER.fullmatch(value) is None:
        raise request_error("cursor_invalid", "Last-Event-ID: the number of an event of this run")
    return int(value)
