r"""deep-chat: the log as Response objects, as server-sent events, in one piece, or on a WebSocket.

    data: {"text":" Hello"} LF LF
    data: {"role":"status","text":"pdf parsing 3/50","overwrite":true} LF LF

The component deep-chat shows each Response when it arrives. Texts of one role are appended to one
bubble, a text with `overwrite` replaces the bubble, `files` are a message of their own, and `error`
is a bubble beside the answer. On a WebSocket the socket's stop key, sent as a text, ends an answer.
Invariants: the answer is the texts since the last `overwrite`, joined; the stop key is sent once,
and no piece of the answer equals it; an answer has at least one Response, because the component
shows an answer without any as a failure.
Source: docs/protocol.md, "deep-chat".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from api.dialects.failure import GENERATION_FAILED, STREAM_RESET, shown
from api.errors import ErrorBody
from shared.errors import RequestError
from shared.log.event_bytes import RESET, plain_text
from shared.log.events import (
    AnyEvent,
    End,
    Failure,
    File,
    Progress,
    Reset,
    Token,
    decode,
    decode_known,
)
from shared.log.fold import ByteFold, Dialect, FrameFold
from shared.log.ids import EventId
from shared.log.records import Meta
from shared.log.snapshot import Snapshot

Response = dict[str, Any]

ANSWER_ROLE = "ai"  # the role that deep-chat gives to a text without a role
STATUS_ROLE = "status"
BLANK = " "  # for an answer without text; the component would not show an empty text
EXPIRED = "the log of this answer has expired before its end was read"
_encode = msgspec.json.encode


class ResponseBuilder:
    """Turns the entries of one log into Response objects. Pure.

    Attributes:
        has_text: the bubble of the answer has text.
        is_void: that text is no longer valid, so the next text has `overwrite`.
        has_status: a progress has been shown.
        is_over: the `end` of the log was added.
    """

    def __init__(self) -> None:
        self.has_text = False
        self.is_void = False
        self.has_status = False
        self.is_over = False
        self._files: list[Response] = []
        self._repeated = 0  # so many of the files have come again since the answer began again

    def void_answer(self) -> None:
        """Note that the text shown so far is not valid any more."""
        self.is_void = self.has_text
        self._repeated = 0

    def add(self, raw: bytes) -> list[Response]:
        """Return the Response objects of the next entry."""
        event = decode_known(raw)
        if event is None:
            return []
        return self._add(event)

    def _add(self, event: AnyEvent) -> list[Response]:
        match event:
            case Token() if event.text:
                return [self._text_response(event.text)]
            case Progress():
                self.has_status = True
                return [{"role": STATUS_ROLE, "text": progress_text(event), "overwrite": True}]
            case File():
                return self._file_responses(event)
            case Reset():
                self.void_answer()
            case End():
                return self._end(event)
        return []

    def _text_response(self, text: str) -> Response:
        response: Response = {"text": text}
        if self.is_void:
            response["overwrite"] = True
        self.has_text, self.is_void = True, False
        return response

    def _file_responses(self, event: File) -> list[Response]:
        """Return a file, except where it comes again: a file that was shown stays shown."""
        file = file_object(event)
        if file in self._files[self._repeated :]:
            self._repeated = self._files.index(file, self._repeated) + 1
            return []
        self._files.append(file)
        self._repeated = len(self._files)
        return [{"files": [file]}]

    def _end(self, end: End) -> list[Response]:
        self.is_over = True
        responses = []
        if self.is_void or not (self.has_text or self._files or end.status == "failed"):
            responses.append(self._text_response(BLANK))
        if end.status == "failed":
            responses.append({"error": shown(end.error or GENERATION_FAILED).message})
        return responses


class DeepChatFold(ByteFold):
    """One answer as server-sent events.

    The component writes one bubble at a time here: a text of another role closes the bubble. So the
    first text after a status names its role, and a progress after the first text is not shown.
    """

    def __init__(self, meta: Meta) -> None:
        self._builder = ResponseBuilder()
        self._is_status = False

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        builder = self._builder
        if builder.has_text and not builder.is_void and not self._is_status:
            text = plain_text(raw)
            if text:
                return b'id: %d-%d\ndata: {"text":"%b"}\n\n' % (*event_id, text)
        responses = [self._with_role(response) for response in builder.add(raw)]
        return b"".join(_sse_frame(event_id, response) for response in responses if response)

    def _with_role(self, response: Response) -> Response:
        """Return the response, with a role where it opens a bubble; empty: do not show it."""
        if "role" in response:
            if self._builder.has_text:
                return {}
            self._is_status = True
        elif "text" in response and self._is_status:
            self._is_status = False
            return {"role": ANSWER_ROLE, **response}
        return response

    def aside(self, raw: bytes) -> bytes:
        # The bytes of a log are shared by all readers, so the answer cannot begin again with an
        # `overwrite` for this reader alone.
        message = STREAM_RESET.message if raw == RESET else _failure_of(raw).message
        return b"data: " + _encode({"error": message}) + b"\n\n"


DEEP_CHAT = Dialect("deep-chat", DeepChatFold, is_compressible=True)


class DeepChatFrameFold(FrameFold):
    """One answer on a socket: one Response in each frame, then the stop key.

    On a socket each role has its own bubble, and its own stop key closes it.

    Args:
        stop_key: at least two characters, so that a text that equals it can be sent in two pieces.
    """

    joins = True
    restarts = True

    def __init__(self, meta: Meta, stop_key: str) -> None:
        assert len(stop_key) > 1
        self._stop_key = stop_key
        self._builder = ResponseBuilder()

    def add(self, event_id: EventId, raw: bytes) -> Sequence[bytes]:
        responses = self._builder.add(raw)
        frames = [_encode(piece) for response in responses for piece in self._pieces(response)]
        return [*frames, *self._stop_frames()] if self._builder.is_over else frames

    def aside(self, raw: bytes) -> Sequence[bytes]:
        if raw == RESET:
            self._builder.void_answer()
            return ()
        return self._fail(_failure_of(raw).message)

    def expired(self) -> Sequence[bytes]:
        return self._fail(EXPIRED)

    def _pieces(self, response: Response) -> list[Response]:
        """Return the response in pieces, none of which has the stop key as its text."""
        key = self._stop_key
        if response.get("text") != key:
            return [response]
        if "role" in response:
            return [{**response, "text": key + BLANK}]
        return [{**response, "text": key[0]}, {"text": key[1:]}]

    def _fail(self, message: str) -> Sequence[bytes]:
        return [_encode({"error": message}), *self._stop_frames()]

    def _stop_frames(self) -> list[bytes]:
        key = {"text": self._stop_key}
        status = [{"role": STATUS_ROLE, **key}] if self._builder.has_status else []
        return [_encode(response) for response in (*status, key)]


class CompleteAnswer:
    """An answer in one piece: add the whole log, then read `failure` or `response`."""

    def __init__(self, meta: Meta) -> None:
        self._snapshot = Snapshot(meta)
        self._files: list[Response] = []

    def add(self, event_id: EventId, raw: bytes) -> None:
        """Add the next entry of the log."""
        self._snapshot.add(event_id, raw)
        if raw.startswith((b'{"type":"file"', b'{"type":"reset"')):
            event = decode(raw)
            self._files = [*self._files, file_object(event)] if isinstance(event, File) else []

    @property
    def failure(self) -> Failure | None:
        """Why the generation failed; None: it did not."""
        end = self._snapshot.end
        assert end is not None
        return (end.error or GENERATION_FAILED) if end.status == "failed" else None

    @property
    def response(self) -> Response:
        """The text and the files of the answer."""
        files = {"files": self._files} if self._files else {}
        return {"text": self._snapshot.text, **files}


def deep_chat_shape(error: RequestError) -> ErrorBody:
    """Return `{"error":"<text>"}`: the component shows any other body to its user as JSON."""
    return ErrorBody(_encode({"error": error.message}))


def file_object(event: File) -> Response:
    """Return a file in the form of deep-chat, which shows a picture, a player or a link."""
    kind = event.media_type.partition("/")[0]
    return {
        "src": event.url or f"data:{event.media_type};base64,{event.data}",
        "name": event.name,
        "type": kind if kind in ("image", "audio") else "any",
    }


def progress_text(event: Progress) -> str:
    """Return the text of a status, for example `pdf parsing 3/50`."""
    named = f"{event.agent}: " if event.agent else ""
    return f"{named}{event.stage.replace('_', ' ')} {event.current}/{event.total}"


def _failure_of(raw: bytes) -> Failure:
    event = decode(raw)
    assert isinstance(event, End)
    return event.error or GENERATION_FAILED


def _sse_frame(event_id: EventId, response: Response) -> bytes:
    return b"id: %d-%d\ndata: %b\n\n" % (*event_id, _encode(response))
