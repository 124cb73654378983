"""/ai-sdk/chat: the requests of useChat and of its transports over HTTP.

A chat has answers; an answer is a run. A client that replays an answer knows the chat, a client
that counts chunks knows the run. Both send GET …/stream; the query parameter `startIndex` tells
them apart. The bytes are api/dialects/ai_sdk/fold.py's; shared/queue/chats.py orders stops and
answers.
Source: docs/protocol.md, "AI SDK".
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from urllib.parse import quote, unquote_to_bytes

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api.deadline import answer_deadline
from api.dialects.ai_sdk.fold import AI_SDK, join_deltas
from api.dialects.ai_sdk.request import AiSdkRequest, parse_ai_sdk
from api.dialects.prompt import accept_post
from api.edge.method_dispatch import Handler, Resource
from api.errors import request_error
from api.hub.encoded import EncodedLog
from api.hub.hub import Hub
from api.hub.relay import Relay
from api.node import Node
from api.readers.chunk_number import ChunkPlace, fold_all, locate
from api.readers.http_stream import Begin, Beginning, stream
from api.readers.lookup import find_generation
from shared.config.credentials import Identity
from shared.errors import NotFound, RequestError
from shared.log.ids import GENERATION_PREFIX, START, EventId, is_generation_id
from shared.log.records import Meta
from shared.queue.chats import Chats

START_INDEX = "startIndex"
JOINED_BYTES_MAX = 2**20  # of frames in a replay; later frames are sent unchanged
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,15}", re.ASCII)


class AiSdkRoutes:
    """The handlers of /ai-sdk/chat and of the paths below it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.chats = Chats(node.redis, node.store, node.settings, by=node.asker(""))

    async def create(self, request: HttpRequest) -> ASGIApp:
        """POST /ai-sdk/chat."""
        meta, parsed = await accept_post(
            self.node, request, parse_ai_sdk, is_any_type=True, complete=self._add_stops
        )
        if parsed.chat:
            async with answer_deadline():
                await self.chats.add(parsed.chat, meta, parsed.stops)
        return self._stream(meta)

    async def _add_stops(self, parsed: AiSdkRequest, identity: Identity) -> AiSdkRequest:
        if not parsed.chat:
            return parsed
        async with answer_deadline():
            return replace(parsed, stops=await self.chats.stops(identity.owner, parsed.chat))

    async def stream(self, request: HttpRequest) -> ASGIApp:
        """GET /ai-sdk/chat/{name}/stream.

        With `startIndex`: a run from that chunk on. Without: the chat's running answer from its
        start; 204 where the chat has none.
        """
        identity, name = self.node.identity(request), read_path_name(request)
        index = request.query_params.get(START_INDEX)
        if index is not None:
            number, since_s = parse_start_index(index), asyncio.get_running_loop().time()
            meta = await self._find_run(identity, name, number)
            return self._stream(meta, begin_at_chunk(self.node.hub, number, since_s))
        async with answer_deadline():
            running = await self.chats.running(identity, name)
        if running is None:
            return Response(status_code=204)
        return self._stream(running, begin_replay(self.node.hub))

    async def _find_run(self, identity: Identity, name: str, number: int) -> Meta:
        """Return the run with the id `name`, else the chat's running run, else its newest run."""
        # Clients make up names for chats. Such a name may look like an id except for the prefix.
        is_run = name.startswith(GENERATION_PREFIX) and is_generation_id(name)
        try:
            if is_run:
                # A client that has counted chunks has seen the run: wait if Redis has just lost it.
                cursor = EventId(1, 1) if number else START
                hub, store = self.node.hub, self.node.store
                return await find_generation(hub, store, identity, name, cursor)
        except NotFound:
            pass
        async with answer_deadline():
            metas = await self.chats.runs(identity, name)
        if not metas:
            raise NotFound("run")
        return next((meta for meta in metas if not meta.is_ended), metas[0])

    async def stop(self, request: HttpRequest) -> ASGIApp:
        """POST /ai-sdk/chat/{name}/stop: cancel every run of the chat."""
        owner, name = self.node.owner(request), read_path_name(request)
        async with answer_deadline():
            await self.chats.stop(owner, name)
        return Response(status_code=204)

    def _stream(self, meta: Meta, begin: Begin | None = None) -> ASGIApp:
        run = meta.generation_id.encode()
        headers = [(b"x-generation-id", run), (b"x-workflow-run-id", run)]

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await stream(
                self.node.hub, scope, receive, send,
                meta=meta, dialect=AI_SDK, headers=headers, begin=begin,
            )  # fmt: skip

        return answer


def begin_replay(hub: Hub) -> Begin:
    """Return a function that begins an answer at its start, with the text so far in few deltas."""

    async def begin(relay: Relay) -> Beginning:
        log = await fold_all(hub, relay, AI_SDK)
        frames, seq = log.slice(0, JOINED_BYTES_MAX)
        if not frames or log.is_finished:
            return Beginning(head=log.opening)
        return Beginning(relay.feed.ids.at(seq), head=log.opening + join_deltas(frames))

    return begin


def begin_at_chunk(hub: Hub, number: int, since_s: float | None = None) -> Begin:
    """Return a function that begins an answer at chunk `number`.

    Args:
        number: from 0; a negative number counts from the end.
        since_s: as of `answer_deadline`.
    """

    async def begin(relay: Relay) -> Beginning:
        async with answer_deadline(since_s):
            log = await fold_all(hub, relay, AI_SDK)
            tail = log.chunks - 1
            if number < 0:
                place = await _place_from_end(hub, relay, log, max(0, log.chunks + number))
            else:
                place = await _place_from_start(hub, relay, log, number)
        headers = [(b"x-workflow-stream-tail-index", b"%d" % tail)]
        return Beginning(place.cursor, head=place.head, headers=headers)

    return begin


async def _place_from_start(hub: Hub, relay: Relay, log: EncodedLog, number: int) -> ChunkPlace:
    """Return the place of chunk `number`; past the end of a finished log that of `finish`."""

    def is_past_end() -> bool:
        return log.is_finished and number >= log.chunks

    place = None
    if not is_past_end():
        try:
            place = await locate(hub, relay, AI_SDK, number)
        except RequestError:
            if not is_past_end():  # the log may have finished during `locate`
                raise
    if place is None or is_past_end():
        return await locate(hub, relay, AI_SDK, log.chunks - 1)
    return place


async def _place_from_end(hub: Hub, relay: Relay, log: EncodedLog, number: int) -> ChunkPlace:
    """Return the place of chunk `number`, which was counted here from the end.

    The client has counted nothing itself, so a loss cannot have made the number wrong.
    """
    found = log.find_chunk(number)
    if found is None:  # the node has dropped this part of the log: read it again
        return await locate(hub, relay, AI_SDK, number)
    seq, head = found
    return ChunkPlace(relay.feed.ids.at(seq) if seq else START, head)


def parse_start_index(text: str) -> int:
    """Return the number in `startIndex`.

    Raises:
        RequestError: 400, not a whole number.
    """
    if _WHOLE_NUMBER.fullmatch(text) is None:
        raise request_error("cursor_invalid", f"{START_INDEX}: a whole number")
    return int(text)


# Names in paths


class RawPathRoute(Route):
    """A route that matches the path before decoding: a name may contain any character, also `/`."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        raw = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
        return super().matches({**scope, "path": raw.decode("latin-1")})


def raw_path_route(path: str, **methods: Handler) -> RawPathRoute:
    """Return the raw route of one path: `GET=handler, POST=handler`."""
    return RawPathRoute(path, Resource(path, **methods))


def read_path_name(request: HttpRequest) -> str:
    """Return the chat or run in the path of a `RawPathRoute`.

    Raises:
        NotFound: not UTF-8, so no chat has this name.
    """
    try:
        return unquote_to_bytes(request.path_params["name"]).decode()
    except UnicodeDecodeError:
        raise NotFound("chat") from None
