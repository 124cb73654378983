"""/ai-sdk/chat: what useChat and its transports ask over HTTP.

A chat has answers, an answer is a run; the client that replays knows the chat, the one that counts
chunks knows the run. Both ask GET …/stream, and `startIndex` tells them apart.
The bytes are api/dialects/ai_sdk/fold.py's, the order of stops shared/queue/chats.py's.
Source: docs/protocol.md, "AI SDK".
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import NoReturn
from urllib.parse import quote, unquote_to_bytes

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api.dialects.ai_sdk.fold import AI_SDK, joined
from api.dialects.ai_sdk.request import AiSdkRequest, parse_ai_sdk
from api.dialects.start import start
from api.errors import request_error
from api.hub.encoded import EncodedLog
from api.hub.hub import Hub
from api.hub.relay import Relay
from api.node import Node, answering
from api.readers.chunk_number import Place, fold_all, locate
from api.readers.http_stream import Begin, Beginning, stream
from api.readers.lookup import find
from shared.errors import NotFound, RequestError
from shared.log.ids import START, EventId, is_generation_id
from shared.log.records import Meta
from shared.queue.chats import Chats

START_INDEX = "startIndex"
RUN_PREFIX = "gen_"
JOINED_BYTES_MAX = 2**20  # of frames; what comes after them is sent as it is
_START_INDEX = re.compile(r"-?[0-9]{1,15}", re.ASCII)


class AiSdkRoutes:
    """The handlers of /ai-sdk/chat and what is below it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.chats = Chats(node.redis, node.store, node.settings)

    async def create(self, request: HttpRequest) -> ASGIApp:
        """POST /ai-sdk/chat."""
        meta, asked = await start(
            self.node, request, parse_ai_sdk, is_any_type=True, complete=self._complete
        )
        if asked.chat:
            async with answering():
                await self.chats.add(asked.chat, meta, asked.stops)
        return self._stream(meta)

    async def _complete(self, asked: AiSdkRequest, owner: str) -> AiSdkRequest:
        if not asked.chat:
            return asked
        async with answering():
            return replace(asked, stops=await self.chats.stops(owner, asked.chat))

    async def stream(self, request: HttpRequest) -> ASGIApp:
        """GET /ai-sdk/chat/{name}/stream: a chat's running answer, or a run from chunk N on."""
        owner, name = self.node.owner(request), name_of(request)
        index = request.query_params.get(START_INDEX)
        if index is not None:
            number, since_s = read_index(index), asyncio.get_running_loop().time()
            meta = await self._run(owner, name, number)
            return self._stream(meta, begin_at(self.node.hub, number, since_s))
        async with answering():
            running = await self.chats.running(owner, name)
        if running is None:
            return Response(status_code=204)
        return self._stream(running, replay(self.node.hub))

    async def _run(self, owner: str, name: str, number: int) -> Meta:
        """Return a run by its id, or by its chat: the one that runs, else the newest."""
        # Clients make up names for chats that look like ids in everything but this.
        is_run = name.startswith(RUN_PREFIX) and is_generation_id(name)
        try:
            if is_run:
                cursor = EventId(1, 1) if number else START  # who has counted has seen it
                return await find(self.node.hub, self.node.store, owner, name, cursor)
        except NotFound:
            pass
        async with answering():
            metas = await self.chats.runs(owner, name)
        if not metas:
            raise NotFound("run")
        return next((meta for meta in metas if not meta.is_ended), metas[0])

    async def stop(self, request: HttpRequest) -> ASGIApp:
        """POST /ai-sdk/chat/{name}/stop: nothing runs in this chat any more."""
        owner, name = self.node.owner(request), name_of(request)
        async with answering():
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


def replay(hub: Hub) -> Begin:
    """Return what begins a running answer from its start, the text so far in few large deltas."""

    async def begin(relay: Relay) -> Beginning:
        log = await fold_all(hub, relay, AI_SDK)
        frames, seq = log.slice(0, JOINED_BYTES_MAX)
        if not frames or log.is_finished:
            return Beginning(head=log.opening)
        return Beginning(relay.feed.ids.at(seq), head=log.opening + joined(frames))

    return begin


def begin_at(hub: Hub, number: int, since_s: float | None = None) -> Begin:
    """Return what begins an answer at chunk `number`; a negative one counts from the end.

    Args:
        since_s: as of `answering`.
    """

    async def begin(relay: Relay) -> Beginning:
        async with answering(since_s):
            log = await fold_all(hub, relay, AI_SDK)
            tail = log.chunks - 1
            if number < 0:
                place = await _from_end(hub, relay, log, max(0, log.chunks + number))
            else:
                place = await _from_start(hub, relay, log, number)
        headers = [(b"x-workflow-stream-tail-index", b"%d" % tail)]
        return Beginning(place.cursor, head=place.head, headers=headers)

    return begin


async def _from_start(hub: Hub, relay: Relay, log: EncodedLog, number: int) -> Place:
    """Past the end of a log that is finished, also of one that finishes just now: `finish`."""

    def is_past_end() -> bool:
        return log.is_finished and number >= log.chunks

    place = None
    if not is_past_end():
        try:
            place = await locate(hub, relay, AI_SDK, number)
        except RequestError:
            if not is_past_end():
                raise
    if place is None or is_past_end():
        return await locate(hub, relay, AI_SDK, log.chunks - 1)
    return place


async def _from_end(hub: Hub, relay: Relay, log: EncodedLog, number: int) -> Place:
    """This client has counted nothing yet, so no loss can have made its number wrong."""
    found = log.find(number)
    if found is None:  # let go of meanwhile: to be read again
        return await locate(hub, relay, AI_SDK, number)
    seq, head = found
    return Place(relay.feed.ids.at(seq) if seq else START, head)


def read_index(text: str) -> int:
    """Return `startIndex`.

    Raises:
        RequestError: 400, no whole number.
    """
    if _START_INDEX.fullmatch(text) is None:
        raise request_error("cursor_invalid", f"{START_INDEX}: a whole number")
    return int(text)


# Names in paths


class RawRoute(Route):
    """A route that sees the path as it was sent: a name may hold any character, also a slash."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        raw = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
        return super().matches({**scope, "path": raw.decode("latin-1")})


def name_of(request: HttpRequest) -> str:
    """Return the chat or run in the path of a `RawRoute`.

    Raises:
        NotFound: no text, so no chat has this name.
    """
    try:
        return unquote_to_bytes(request.path_params["name"]).decode()
    except UnicodeDecodeError:
        _nobody()


def _nobody() -> NoReturn:
    raise NotFound("chat")
