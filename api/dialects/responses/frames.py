"""The frames of `GET /v1/responses`: the events of a response as JSON, and errors.

    {"type":"response.output_text.delta","stream_id":"main","sequence_number":5,…}
    {"type":"error","status":400,"stream_id":"main","error":{"type":…,"code":…,"message":…}}

The events are those of the SSE stream (api/dialects/responses/fold.py) with the same numbers; an
event of a named stream also has its `stream_id`. Invariant: a frame is left out only before the
number from which the client reads, and then the log is the one in which that number was found.
Source: docs/dialects/responses-websocket.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from api.dialects.openai_errors import (
    GenerationFailed,
    error_object,
    failure_object,
    openai_status,
)
from api.dialects.responses.fold import ResponsesFold
from api.dialects.responses.response_object import response_id
from api.errors import request_error
from shared.errors import Expired, RequestError
from shared.log.events import Failure
from shared.log.fold import FrameFold
from shared.log.ids import START, EventId
from shared.log.records import Meta

REWRITTEN = (
    "the log was rewritten after a loss: send response.resume with your last sequence_number, or "
    "read again from the start if that is refused"
)


class SocketError(RequestError):
    """An error that names a member of the client's event.

    Attributes:
        param: the member.
    """

    def __init__(self, code: str, message: str, param: str, *, status: int = 400) -> None:
        super().__init__(status, code, message)
        self.param = param


class _FrameFold(ResponsesFold):
    """`ResponsesFold` whose events are lines of JSON.

    Args:
        stream_id: of the stream; empty: events have no such member.
        first: number of the first event that is not left out.
    """

    def __init__(self, meta: Meta, stream_id: str, first: int) -> None:
        super().__init__(meta)
        self._stream = {"stream_id": stream_id} if stream_id else {}
        self._first = first

    def _frame(self, name: str, members: dict[str, Any]) -> bytes:
        number = self.given
        self.given += 1
        if number < self._first:
            return b""
        return _encode({"type": name, **self._stream, "sequence_number": number, **members}) + b"\n"

    def _error_frame(self, failure: Failure) -> bytes:
        """Return the event `error`, with the status that a failure has over HTTP."""
        error = failure_object(failure)
        beside = {name: error[name] for name in ("code", "message", "param")}
        status = openai_status(GenerationFailed(failure).status)
        return self._frame("error", {"status": status, **beside, "error": error})


class ResponsesFrameFold(FrameFold):
    """One reading of one response.

    Args:
        stream_id: the client's name of the stream; empty: the default stream.
        first: number of the first event to send.
        found_at: the entry in which `first` was found; `START`: in none.
    """

    def __init__(
        self, meta: Meta, stream_id: str = "", *, first: int = 0, found_at: EventId = START
    ) -> None:
        self.response_id = response_id(meta.generation_id)
        self._stream_id = stream_id
        self._first = first
        self._fold = _FrameFold(meta, stream_id, first)
        self._found_at = found_at

    @property
    def last_number(self) -> int:
        """Number of the last event so far."""
        return self._fold.given - 1

    @property
    def has_nothing_left(self) -> bool:
        """Whether the response has ended with the event before the first one to send."""
        is_after_all = self._first > 0 and self._fold.given == self._first
        return is_after_all and self._fold.end is not None

    @property
    def status(self) -> str:
        """Of the response, for example `completed`; `queued` and `in_progress` before its end."""
        return str(self.response()["status"])

    def response(self) -> dict[str, Any]:
        """Return the response object after the entries that were added."""
        return self._fold.response()

    def opening(self) -> Sequence[bytes]:
        """Return the events that come before the first entry. Called once, before `add`."""
        return _lines(self._fold.opening())

    def empty_frame(self) -> bytes:
        """Return the answer where nothing is left. It repeats the last number."""
        frame: dict[str, Any] = {"type": "response.resume.empty"}
        if self._stream_id:
            frame["stream_id"] = self._stream_id
        numbered = {"sequence_number": self.last_number, "response_id": self.response_id}
        return _encode({**frame, **numbered, "status": self.status})

    def add(self, event_id: EventId, raw: bytes) -> Sequence[bytes]:
        if event_id.seq == self._found_at.seq and event_id != self._found_at:
            self.is_over = True
            return [self._error(request_error("stream_reset", REWRITTEN))]
        return _lines(self._fold.add(event_id, raw))

    def aside(self, raw: bytes) -> Sequence[bytes]:
        last = self._fold.aside(raw)
        if last is None:
            return [self._error(request_error("stream_reset", REWRITTEN))]
        return _lines(last)

    def expired(self) -> Sequence[bytes]:
        return [self._error(Expired())]

    def _error(self, error: RequestError) -> bytes:
        return error_frame(error, stream_id=self._stream_id, response=self.response_id)


def error_frame(error: RequestError, *, stream_id: str = "", response: str = "") -> bytes:
    """Return the frame of an error in OpenAI's form.

    Args:
        stream_id, response: of the request that failed; empty: unknown.
    """
    status = openai_status(error.status)
    param = error.param if isinstance(error, SocketError) else None
    if error.code == "model_not_found":
        param = "model"
    frame: dict[str, Any] = {"type": "error", "status": status}
    if stream_id:
        frame["stream_id"] = stream_id
    if response:
        frame["response_id"] = response
    frame["error"] = error_object(error.code, error.message, status=status, param=param)
    if error.retry_after_s is not None:
        frame["headers"] = {"retry-after": str(error.retry_after_s)}
    return _encode(frame)


def _lines(joined: bytes) -> list[bytes]:
    return joined.split(b"\n")[:-1]  # encoded JSON has no line breaks


_encode = msgspec.json.encode
