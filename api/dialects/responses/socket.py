"""GET /v1/responses as a WebSocket: OpenAI's WebSocket mode of Responses.

Events of a client give requests to streams (socket_streams.py). Each running request has a task of
the hub, which sends its response and then lets the next request of its stream run. The socket may
die: the responses go on, and another socket on any node reads on by number. Source:
docs/dialects/responses-websocket.md.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from starlette.types import Scope, Send

from api.access import FRAMES
from api.deadline import answer_deadline
from api.dialects.prompt import accept_members
from api.dialects.responses.creation import Creation, read_number, read_order
from api.dialects.responses.fold import RESPONSES, status_of
from api.dialects.responses.frames import ResponsesFrameFold, SocketError, error_frame
from api.dialects.responses.response_object import UNSTORED, response_id
from api.dialects.responses.socket_streams import DEFAULT, SocketStreams
from api.dialects.responses.steering import (
    HELD_MAX,
    STEERS_MAX,
    Steer,
    SteerError,
    accepted_event,
    failed_event,
    joined_input,
    pending_event,
    read_steer,
    required_input,
    shared_members,
    successor_of,
)
from api.dialects.responses.stored import StoredResponses
from api.dialects.waiting_frame import WaitingFrame
from api.errors import CODES, unavailable
from api.node import Node
from api.readers.chunk_number import ChunkPlace, locate
from api.readers.conversation import Command, Conversation, Frame
from api.readers.socket_endpoint import SocketEndpoint
from api.readers.websocket_sender import RESTARTING
from shared.config.credentials import Identity
from shared.errors import Draining, NotFound, RequestError, Unavailable
from shared.log.ids import START, EventId
from shared.log.records import Meta
from shared.log.request import dialect_of
from shared.queue.endings import cancel

PATH = "/v1/responses"
CREATE, RESUME = "response.create", "response.resume"
STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")
KNOWN_MAX = 1_000  # responses that a socket may continue although they were not stored
ID_CHARACTERS_MAX = 128
# Of `connection_age_s`: after it the socket takes no further request, and is closed when no
# response runs. The hub breaks a socket off after 0.8 to 1.0 of the age.
OLD_SHARE = 0.75


def responses_socket(node: Node) -> SocketEndpoint:
    """Return the ASGI application of the socket."""
    return SocketEndpoint(node, PATH, ResponsesConversation)


class _WaitingRequest(WaitingFrame):
    """A `response.create` or `response.resume` that waits or runs.

    Attributes:
        kind: its type.
        stream_id: of its stream.
    """

    def __init__(self, frame: Frame, size: int) -> None:
        super().__init__(frame, size)
        self.kind = str(frame["type"])
        self.stream_id = _read_stream_id(frame)


class _Running:
    """A response that this socket sends.

    Attributes:
        steers: input that waits for its end.
    """

    def __init__(self, fold: ResponsesFrameFold, stream_id: str) -> None:
        self.fold = fold
        self.stream_id = stream_id
        self.steers: list[Steer] = []


class ResponsesConversation(Conversation):
    """OpenAI's protocol. Each subscription has a number of its own as its key."""

    def __init__(self, node: Node, identity: Identity, scope: Scope, send: Send) -> None:
        super().__init__(node, identity, scope, send)
        self._stored = StoredResponses(node)
        self._creation = Creation(node, self._stored)
        self._streams: SocketStreams[_WaitingRequest] = SocketStreams()
        self._tasks: dict[asyncio.Task[None], _WaitingRequest] = {}
        self._numbers = itertools.count()
        self._running: dict[str, _Running] = {}  # by the id of the response
        self._known: dict[str, None] = {}  # ids of responses; the oldest first
        # By the id of a response that waits for results of tools: the input that waits with it.
        self._held: dict[str, tuple[str, list[Steer]]] = {}
        self._is_old = False
        self._aging: asyncio.TimerHandle | None = None

    def enter(self) -> None:
        super().enter()
        age_s = self.node.settings.connection_age_s * OLD_SHARE
        self._aging = asyncio.get_running_loop().call_later(age_s, self._grow_old)

    def leave(self) -> None:
        if self._aging is not None:
            self._aging.cancel()
        for task, request in self._tasks.items():
            task.cancel()
            # A cancelled task that has not started does not release its memory itself.
            request.release()
        for request in self._streams.clear():
            request.release()
        super().leave()

    def send_error(self, frame: Any, error: RequestError) -> None:
        named = frame if isinstance(frame, dict) else {}
        stream_id, response = named.get("stream_id"), named.get("response_id")
        if not isinstance(stream_id, str) or not STREAM_ID.fullmatch(stream_id):
            stream_id = ""
        if not isinstance(response, str) or len(response) > ID_CHARACTERS_MAX:
            response = ""
        said = error_frame(error, stream_id=stream_id, response=response)
        self.socket.say_text(said.decode())

    def handle_binary(self) -> None:
        self.send_error(None, SocketError("invalid_request", "an event is a text frame", ""))
        super().handle_binary()

    # The age

    def _grow_old(self) -> None:
        self._is_old = True
        self._close_if_old()

    def _close_if_old(self) -> None:
        if self._is_old and self._streams.is_idle:
            self.send_error(None, self._too_old())
            self.socket.close(RESTARTING)

    def _too_old(self) -> SocketError:
        minutes = round(self.node.settings.connection_age_s * OLD_SHARE / 60)
        return SocketError(
            "websocket_connection_limit_reached",
            f"this socket has reached its age ({minutes} minutes): open another one",
            "",
        )

    # Events of the client

    async def _queue(self, frame: Frame) -> None:
        """Put a `response.create` or a `response.resume` into its stream."""
        if self.hub.is_draining:
            raise Draining()
        if self._is_old:
            raise self._too_old()
        request = _WaitingRequest(frame, self.frame_bytes)
        self._streams.add(request.stream_id, request)
        request.release = self.keep_memory(request.give_up)
        self._run_ready()

    async def _cancel(self, frame: Frame) -> None:
        response = _read_response_id(frame)
        meta = await self._find(response)
        by = self.node.asker(self.owner, meta)
        meta = await cancel(self.node.store, meta.generation_id, by=by) or meta
        members = {"response_id": response, "status": status_of(meta)}
        self.socket.say(type="response.cancel.accepted", **members)

    async def _steer(self, frame: Frame) -> None:
        parent, given = frame.get("previous_response_id"), frame.get("input")
        running = self._running.get(parent) if isinstance(parent, str) else None
        try:
            steer = read_steer(frame, self.frame_bytes)
            if running is None:
                raise self._not_running(steer.parent)
            if len(running.steers) >= STEERS_MAX:
                raise SteerError("too_many_pending_steers", f"at most {STEERS_MAX} steers wait")
        except SteerError as exc:
            self._say_steer(running, failed_event(exc, parent=parent, given=given))
            return
        running.steers.append(steer)
        self._say_steer(running, accepted_event(steer))

    def _not_running(self, response: str) -> SteerError:
        if response in self._known:
            return SteerError("response_already_completed", "this response has ended")
        return SteerError("response_not_found", "this socket sends no such response")

    def _say_steer(self, running: _Running | None, event: Frame) -> None:
        """Send an event of steering. It is not in the log, so it repeats the last number."""
        named: Frame = {"sequence_number": 0}
        if running is not None:
            named["sequence_number"] = max(0, running.fold.last_number)
            if running.stream_id != DEFAULT:
                named["stream_id"] = running.stream_id
        self.socket.say(**event, **named)

    async def _note_processed(self, frame: Frame) -> None:
        """Ignore the note of a client that it has processed a response."""

    scopes = FRAMES[PATH]
    commands: ClassVar[Mapping[str, Command]] = {
        CREATE: _queue,
        RESUME: _queue,
        "response.cancel": _cancel,
        "response.steer": _steer,
        "response.processed": _note_processed,
    }

    # Running requests

    def _run_ready(self) -> None:
        if not self.socket.is_open:  # requests that wait are dropped with the socket
            return
        for request in self._streams.take_ready():
            task = self.hub.spawn(self._serve(request))
            if task is None:  # the hub is closed, and breaks this socket off
                request.release()
                continue
            self._tasks[task] = request
            task.add_done_callback(self._tasks.pop)

    async def _serve(self, request: _WaitingRequest) -> None:
        """Send the responses of one request: its own, and those of its steers."""
        names = {"stream_id": request.stream_id}
        try:
            meta, number = await self._begin(request, names)
            while True:
                names["response_id"] = response_id(meta.generation_id)
                running = await self._send_response(request, meta, number)
                successor = await self._continue_with_steers(running, meta)
                if successor is None:
                    break
                meta, number = successor, 0
        except Unavailable:
            self.fail(names, unavailable())
        except RequestError as exc:
            self.fail(names, exc)
        except Exception:  # boundary: the hub logs it
            self.socket.close(CODES["internal"].close)
            raise
        finally:
            request.release()
            self._streams.finish(request.stream_id)
            self._run_ready()
            self._close_if_old()

    async def _begin(self, request: _WaitingRequest, names: dict[str, str]) -> tuple[Meta, int]:
        """Return the generation of a request, with its request, and the first number to send."""
        body = request.take_body()
        if request.kind == RESUME:
            response, number = _read_response_id(body), read_number(body.get("starting_after"))
            names["response_id"] = response
            # A client with a number has seen the response: wait if Redis has just lost it.
            meta = await self._find(response, EventId(1, 1) if number else START)
            return await self._stored.with_request(meta), number
        steers = self._take_held(request, body)
        try:
            order = read_order(body, request.size)
            meta = await self._creation.accept(order, self.identity, self._known)
        except (RequestError, Unavailable) as exc:
            self._fail_steers(None, steers, "successor_creation_failed", str(exc))
            raise
        finally:
            request.release()
        return meta, order.number

    async def _find(self, response: str, cursor: EventId = START) -> Meta:
        """Return a response that may be read here; one that was not stored only to its owner."""
        known = (response,) if self.identity.share is None else ()
        async with answer_deadline():
            meta = await self._stored.find(response, self.identity, cursor, known=known)
        if UNSTORED in dialect_of(meta) and meta.owner != self.owner:
            raise NotFound("response")
        return meta

    async def _send_response(self, request: _WaitingRequest, meta: Meta, number: int) -> _Running:
        """Send a response from event `number` on, to its end; without events a frame says so."""
        async with answer_deadline():
            relay = await self.hub.hold(meta)
            try:
                place = await locate(self.hub, relay, RESPONSES, number) if number else ChunkPlace()
            except BaseException:
                self.hub.release(relay)
                raise
        fold = ResponsesFrameFold(meta, request.stream_id, first=number, found_at=place.cursor)
        subscription = self.socket.subscribe(str(next(self._numbers)), relay, START, fold)
        for frame in fold.opening():  # a reply leaves before the events that wait
            self.socket.say_text(frame.decode())
        running = self._running[fold.response_id] = _Running(fold, request.stream_id)
        self._know(fold.response_id)
        try:
            await subscription.ended()
            if fold.has_nothing_left and self.socket.is_open:
                self.socket.say_text(fold.empty_frame().decode())
        finally:
            if self._running.get(fold.response_id) is running:
                del self._running[fold.response_id]
        return running

    def _know(self, response: str) -> None:
        self._known.pop(response, None)
        self._known[response] = None
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    # Steering

    async def _continue_with_steers(self, running: _Running, meta: Meta) -> Meta | None:
        """Return the generation that continues a response with its steers; None: none does."""
        steers, fold = running.steers, running.fold
        if not steers or not self.socket.is_open:
            return None
        response = fold.response()
        if response["status"] != "completed":
            why = f"the response ended as {response['status']}"
            self._fail_steers(running, steers, "response_not_active", why)
            return None
        if stubs := required_input(response["output"]):
            self._hold(running, steers, stubs)
            return None
        try:
            parsed = successor_of(meta, fold.response_id, steers)
            parsed = await self._stored.add_conversation(parsed, self.identity, known=self._known)
            if self.hub.is_draining:
                raise Draining()
            return await accept_members(
                self.node, self.identity, shared_members(meta), parsed,
                size=len(meta.request), needs_request=True,
            )  # fmt: skip
        except (RequestError, Unavailable) as exc:
            self._fail_steers(running, steers, "successor_creation_failed", str(exc))
            return None

    def _hold(self, running: _Running, steers: list[Steer], stubs: list[Frame]) -> None:
        self._held[running.fold.response_id] = (running.stream_id, steers)
        for steer in steers:
            self._say_steer(running, pending_event(steer, stubs))
        while len(self._held) > HELD_MAX:
            _, (_, oldest) = next(iter(self._held.items()))
            del self._held[next(iter(self._held))]
            self._fail_steers(None, oldest, "too_many_pending_steers", "too many responses wait")

    def _take_held(self, request: _WaitingRequest, body: Frame) -> list[Steer]:
        """Put the steers of the previous response before the input of a request."""
        previous = body.get("previous_response_id")
        if not isinstance(previous, str) or previous not in self._held:
            return []
        stream_id, steers = self._held[previous]
        if stream_id != request.stream_id:
            return []
        del self._held[previous]
        body["input"] = joined_input(steers, body.get("input"))
        return steers

    def _fail_steers(
        self, running: _Running | None, steers: Sequence[Steer], code: str, message: str
    ) -> None:
        error = SteerError(code, message)
        for steer in steers:
            event = failed_event(error, parent=steer.parent, given=steer.input, steer_id=steer.id)
            self._say_steer(running, event)


def _read_stream_id(frame: Frame) -> str:
    value = frame.get("stream_id")
    if value is None:
        return DEFAULT
    if not isinstance(value, str) or not STREAM_ID.fullmatch(value):
        raise SocketError(
            "invalid_stream_id",
            "stream_id: 1 to 256 letters, digits, underscores, hyphens and periods; leave it out "
            "for the default stream",
            "stream_id",
        )
    return value


def _read_response_id(frame: Frame) -> str:
    value = frame.get("response_id")
    if not isinstance(value, str):
        raise SocketError("invalid_request", "response_id: the id of a response", "response_id")
    return value
