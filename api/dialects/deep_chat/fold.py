r"""deep-chat: the log as Response objects, over server-sent events, in one piece, over WebSocket.

    data: {"text":" Hello"} LF LF
    data: {"role":"status","text":"pdf parsing 3/50","overwrite":true} LF LF

deep-chat shows each Response as it comes: texts of one role grow one bubble, `overwrite` replaces
it, `files` are a message of their own, `error` is a bubble beside what was said. Over WebSocket an
answer is over when the socket's stop key comes as a text. Invariants: the texts since the last
`overwrite`, joined, are the answer; the stop key comes once, and no piece of the answer is taken
for it; an answer never ends without anything to show, because the component would show a failure.
Source: docs/protocol.md, "deep-chat".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

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
from shared.log.fold import Dialect, Fold, FrameFold
from shared.log.ids import EventId
from shared.log.records import Meta
from shared.log.snapshot import Snapshot

Response = dict[str, Any]

ANSWER_ROLE = "ai"  # what deep-chat calls the role of a text that names none
STATUS_ROLE = "status"
NOTHING = " "  # an empty text would not be shown at all
BEGUN_ANEW = "the answer was begun anew and what was sent is void: ask again"
EXPIRED = "the log of this answer has expired before its end was read"
GIVEN_UP = Failure("upstream_error", "the generation failed", True)
_encode = msgspec.json.encode


class DeepChatResponses:
    """What is shown of one log: entries in, Response objects out. Pure.

    Attributes:
        has_text: the answer's bubble has been begun.
        is_void: what stands in it is; the next text says so.
        has_status: a progress was shown.
        is_over: the end was.
    """

    def __init__(self) -> None:
        self.has_text = False
        self.is_void = False
        self.has_status = False
        self.is_over = False
        self._files: list[Response] = []
        self._again = 0  # of the files, so many were shown again since the answer began anew

    def begin_anew(self) -> None:
        """What was shown is void."""
        self.is_void = self.has_text
        self._again = 0

    def add(self, raw: bytes) -> list[Response]:
        event = decode_known(raw)
        if event is None:
            return []
        return self._add(event)

    def _add(self, event: AnyEvent) -> list[Response]:
        match event:
            case Token() if event.text:
                return [self._text(event.text)]
            case Progress():
                self.has_status = True
                return [{"role": STATUS_ROLE, "text": progress_text(event), "overwrite": True}]
            case File():
                return self._file(event)
            case Reset():
                self.begin_anew()
            case End():
                return self._end(event)
        return []

    def _text(self, text: str) -> Response:
        response: Response = {"text": text}
        if self.is_void:
            response["overwrite"] = True
        self.has_text, self.is_void = True, False
        return response

    def _file(self, event: File) -> list[Response]:
        """Nothing can take a file back, so one that comes again is not shown again."""
        shown = file_of(event)
        if shown in self._files[self._again :]:
            self._again = self._files.index(shown, self._again) + 1
            return []
        self._files.append(shown)
        self._again = len(self._files)
        return [{"files": [shown]}]

    def _end(self, end: End) -> list[Response]:
        self.is_over = True
        said = []
        if self.is_void or not (self.has_text or self._files or end.status == "failed"):
            said.append(self._text(NOTHING))
        if end.status == "failed":
            said.append({"error": (end.error or GIVEN_UP).message})
        return said


class DeepChatFold(Fold):
    """One answer as server-sent events.

    There is one bubble under way at a time here: a text of another role closes it. So the first
    text after a status names its role, and a progress in mid-answer is not shown.
    """

    def __init__(self, meta: Meta) -> None:
        self._responses = DeepChatResponses()
        self._is_status = False

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        responses = self._responses
        if responses.has_text and not responses.is_void and not self._is_status:
            text = plain_text(raw)
            if text:
                return b'id: %d-%d\ndata: {"text":"%b"}\n\n' % (*event_id, text)
        shown = [self._placed(response) for response in responses.add(raw)]
        return b"".join(_frame(event_id, response) for response in shown if response)

    def _placed(self, response: Response) -> Response:
        if "role" in response:
            if self._responses.has_text:
                return {}
            self._is_status = True
        elif "text" in response and self._is_status:
            self._is_status = False
            return {"role": ANSWER_ROLE, **response}
        return response

    def aside(self, raw: bytes) -> bytes:
        # Nothing that all readers share can begin with an `overwrite` for this one alone.
        message = BEGUN_ANEW if raw == RESET else _failure_of(raw).message
        return b"data: " + _encode({"error": message}) + b"\n\n"


DEEP_CHAT = Dialect("deep-chat", DeepChatFold)


class DeepChatFrames(FrameFold):
    """One answer on a socket: a Response a frame, then the stop key.

    Each role has a bubble of its own here, which its own stop key closes.

    Args:
        key: of at least two characters, so that a text that equals it can be sent in two pieces.
    """

    joins = True
    restarts = True

    def __init__(self, meta: Meta, key: str) -> None:
        assert len(key) > 1
        self._key = key
        self._responses = DeepChatResponses()

    def add(self, event_id: EventId, raw: bytes) -> Sequence[bytes]:
        shown = self._responses.add(raw)
        frames = [_encode(piece) for response in shown for piece in self._pieces(response)]
        return [*frames, *self._stop()] if self._responses.is_over else frames

    def aside(self, raw: bytes) -> Sequence[bytes]:
        if raw == RESET:
            self._responses.begin_anew()
            return ()
        return self._fail(_failure_of(raw).message)

    def expired(self) -> Sequence[bytes]:
        return self._fail(EXPIRED)

    def _pieces(self, response: Response) -> list[Response]:
        """Return the response such that it is not taken for the stop key."""
        key = self._key
        if response.get("text") != key:
            return [response]
        if "role" in response:
            return [{**response, "text": key + NOTHING}]
        return [{**response, "text": key[0]}, {"text": key[1:]}]

    def _fail(self, message: str) -> Sequence[bytes]:
        return [_encode({"error": message}), *self._stop()]

    def _stop(self) -> list[bytes]:
        key = {"text": self._key}
        status = [{"role": STATUS_ROLE, **key}] if self._responses.has_status else []
        return [_encode(response) for response in (*status, key)]


class CompleteDeepChat:
    """An answer in one piece."""

    def __init__(self, meta: Meta) -> None:
        self._snapshot = Snapshot(meta)
        self._files: list[Response] = []

    def add(self, event_id: EventId, raw: bytes) -> None:
        self._snapshot.add(event_id, raw)
        if raw.startswith((b'{"type":"file"', b'{"type":"reset"')):
            event = decode(raw)
            self._files = [*self._files, file_of(event)] if isinstance(event, File) else []

    @property
    def failure(self) -> Failure | None:
        end = self._snapshot.end
        assert end is not None
        return (end.error or GIVEN_UP) if end.status == "failed" else None

    @property
    def response(self) -> Response:
        files = {"files": self._files} if self._files else {}
        return {"text": self._snapshot.text, **files}


def deep_chat_shape(error: RequestError) -> ErrorBody:
    """Return `{"error":"<text>"}`: anything else would be shown to people as JSON."""
    return ErrorBody(_encode({"error": error.message}))


def file_of(event: File) -> Response:
    """Return a file as deep-chat shows it: a picture, something to play, or a link."""
    kind = event.media_type.partition("/")[0]
    return {
        "src": event.url or f"data:{event.media_type};base64,{event.data}",
        "name": event.name,
        "type": kind if kind in ("image", "audio") else "any",
    }


def progress_text(event: Progress) -> str:
    return f"{event.stage.replace('_', ' ')} {event.current}/{event.total}"


def _failure_of(raw: bytes) -> Failure:
    event = decode(raw)
    assert isinstance(event, End)
    return event.error or GIVEN_UP


def _frame(event_id: EventId, response: Response) -> bytes:
    return b"id: %d-%d\ndata: %b\n\n" % (*event_id, _encode(response))
