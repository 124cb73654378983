"""GET /v1/ws: many generations on one WebSocket, subprotocol tailrace.v1.

This module gives the frames of a client their meaning; api/readers/conversation.py runs the socket.
Invariant: a generation ends cleanly only with its `end`. Source: docs/protocol.md, "WebSocket".
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

from api.access import FRAMES
from api.dialects.native.audio import AudioUploads, asked_members, state_members
from api.dialects.native.audio_frames import read_chunk, split_frame
from api.dialects.native.binary_files import BinaryFileFold
from api.dialects.native.fold import NativeFrameFold
from api.dialects.prompt import find_accepted
from api.errors import request_error, unavailable
from api.intake.body import check_idempotency_key, check_native
from api.intake.large_body import generation_in_steps
from api.node import Node
from api.readers.conversation import Command, Conversation, Frame, error_frame
from api.readers.first_frame import read_token
from api.readers.socket_endpoint import SUBPROTOCOL, SocketEndpoint
from shared.errors import Draining, RequestError, Unavailable
from shared.log.ids import START, EventId, parse_cursor
from shared.log.records import Meta
from shared.queue.endings import cancel

PATH = "/v1/ws"


def native_socket(node: Node) -> SocketEndpoint:
    """Return the ASGI application of /v1/ws."""
    return SocketEndpoint(
        node,
        PATH,
        functools.partial(NativeConversation, uploads=AudioUploads(node)),
        subprotocol=SUBPROTOCOL,
        is_refusal_readable=True,
        takes_auth_frame=True,
    )


class NativeConversation(Conversation):
    """The native protocol. A subscription has the id of its generation as its key.

    Args:
        uploads: stores the audio of all sockets of the node; None: of this socket alone.
    """

    def __init__(self, *args: Any, uploads: AudioUploads | None = None) -> None:
        super().__init__(*args)
        self.uploads = uploads or AudioUploads(self.node)
        self._is_binary = False  # `file` events are binary frames, unless a frame says otherwise

    def send_error(self, frame: Any, error: RequestError) -> None:
        names = {}
        if isinstance(frame, dict):
            names = {key: frame[key] for key in ("ref", "id") if isinstance(frame.get(key), str)}
            if frame.get("type") == "audio" and type(frame.get("seq")) is int:
                names["seq"] = frame["seq"]
        self.socket.say(**error_frame(error, **names))

    async def _start(self, frame: Frame) -> None:
        ref, key = frame.get("ref"), frame.get("idempotency_key")
        if ref is not None and not isinstance(ref, str):
            raise request_error("invalid_request", "ref must be a string")
        if key is not None and not isinstance(key, str):
            raise request_error("invalid_request", "idempotency_key must be a string")
        if key is not None:
            check_idempotency_key(key)
        if self.hub.is_draining:
            raise Draining()
        is_binary = self._read_binary(frame)
        self.check_subscription_limit()
        new = await generation_in_steps(
            self.node.large,
            self.frame_bytes,
            lambda: check_native(
                frame,
                owner=self.owner,
                models=self.node.models,
                settings=self.node.settings,
                idempotency_key=key or "",
            ),
        )
        accepted = await self.node.acceptance.accept(new, self.identity, is_read=True)
        names = {} if ref is None else {"ref": ref}
        self.socket.say(type="accepted", **names, id=accepted.generation_id)
        meta = await find_accepted(self.node, self.owner, accepted)
        await self._open_subscription(meta, START, is_binary=is_binary)

    async def _subscribe(self, frame: Frame) -> None:
        generation_id, cursor = _read_generation_id(frame), _read_cursor(frame)
        is_binary = self._read_binary(frame)
        if generation_id not in self.socket.subscriptions:
            self.check_subscription_limit()
        await self._open_subscription(await self.find(generation_id), cursor, is_binary=is_binary)

    async def _open_subscription(self, meta: Meta, cursor: EventId, *, is_binary: bool) -> None:
        fold = BinaryFileFold(meta) if is_binary else NativeFrameFold(meta)
        await self.open(meta.generation_id, meta, fold, cursor)

    def _read_binary(self, frame: Frame) -> bool:
        """Return the member `binary`, by default what the last `hello` said."""
        value = frame.get("binary")
        if value is None:
            return self._is_binary
        if not isinstance(value, bool):
            raise request_error("invalid_request", "binary must be true or false")
        return value

    async def _unsubscribe(self, frame: Frame) -> None:
        self.socket.unsubscribe(_read_generation_id(frame))

    async def _cancel(self, frame: Frame) -> None:
        meta = await self.find(_read_generation_id(frame))
        await cancel(self.node.store, meta.generation_id, by=self.node.asker(self.owner, meta))

    async def take_binary(self, data: bytes, refusal: RequestError | None) -> bool:
        """Serve a binary frame: a chunk of audio. A wrong frame gets an error frame."""
        head: Any = None
        try:
            if refusal is not None:
                raise refusal
            head, content = split_frame(data)
            chunk = read_chunk(head, content)
            self.check_permission(head)
            state = await self.uploads.append(head["id"], self.owner, chunk)
            self.socket.say(
                type="audio_received", id=head["id"], seq=chunk.seq, **state_members(state)
            )
        except Unavailable:
            self.fail(head, unavailable())
        except RequestError as exc:
            self.fail(head, exc)
        return True

    async def _audio(self, frame: Frame) -> None:
        raise request_error("invalid_request", "a chunk of audio is a binary frame: docs/audio.md")

    async def _audio_state(self, frame: Frame) -> None:
        name = _read_generation_id(frame)
        state = await self.uploads.state(name, self.owner)
        self.socket.say(type="audio_state", id=name, **asked_members(state))

    async def _ping(self, frame: Frame) -> None:
        self.socket.say(type="pong")

    async def _hello(self, frame: Frame) -> None:
        self._is_binary = self._read_binary(frame)
        self.socket.say(type="hello", heartbeat_s=self.hub.settings.heartbeat_s)

    async def _auth(self, frame: Frame) -> None:
        """Go on with a newer token. A bad one closes the socket, so that nobody guesses here."""
        identity = await self.node.authenticator.check(read_token(frame))
        for generation_id in self.renew(identity):
            error = request_error("forbidden", "the new token does not allow this reading")
            self.send_error({"id": generation_id}, error)

    def warn_of_expiry(self, error: RequestError) -> None:
        self.send_error(None, error)

    scopes = FRAMES[PATH]
    commands: ClassVar[Mapping[str, Command]] = {
        "auth": _auth,
        "start": _start,
        "subscribe": _subscribe,
        "unsubscribe": _unsubscribe,
        "cancel": _cancel,
        "ping": _ping,
        "hello": _hello,
        "audio": _audio,
        "audio_state": _audio_state,
    }


def _read_generation_id(frame: Frame) -> str:
    value = frame.get("id")
    if not isinstance(value, str):
        raise request_error("invalid_request", "id must be a generation's id")
    return value


def _read_cursor(frame: Frame) -> EventId:
    value = frame.get("last_event_id")
    if value is None or value == "":
        return START
    if not isinstance(value, str):
        raise request_error("cursor_invalid", "last_event_id must be a string, for example 1-42")
    return parse_cursor(value)
