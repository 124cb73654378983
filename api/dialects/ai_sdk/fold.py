r"""Vercel's AI SDK: the log as UI message chunks, over HTTP and on a WebSocket.

    data: {"type":"start","messageId":"gen_…"} LF LF                       number 0
    data: {"type":"start-step"} LF LF
    data: {"type":"text-start","id":"text-1"} LF LF
    data: {"type":"text-delta","id":"text-1","delta":" Hello"} LF LF
    …
    data: {"type":"finish","finishReason":"stop"} LF LF
    data: [DONE] LF LF                                                      not counted

Invariants: `finish` is the last chunk, whatever happens, because one client reads again for ever
without it; a delta has its start before it; only types that every version since 6 knows, because
another one ends the client's stream, and `reset-step` where the client has said that it knows it.
Clients count chunks: their number is a function of the log and of what was asked.
Source: docs/protocol.md, "AI SDK".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from api.dialects.openai_errors import GIVEN_UP, STREAM_RESET, failure_aside
from api.errors import ErrorBody
from shared.errors import RequestError
from shared.log.event_bytes import plain_text
from shared.log.events import (
    AnyEvent,
    Data,
    End,
    Failure,
    File,
    Progress,
    Reasoning,
    Reset,
    Start,
    Token,
    ToolCall,
    decode_known,
)
from shared.log.fold import FRAME_END, Dialect, Fold, FrameFold
from shared.log.ids import EventId
from shared.log.records import Meta
from shared.log.request import dialect_of

# In Request.dialect
RESET_STEP = "reset_step"
MESSAGE_ID = "message_id"

DONE = b"data: [DONE]\n\n"
EXPIRED = "the log of this answer has expired before its end was read"
_FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "content_filter": "content-filter",
}
_encode = msgspec.json.encode
_DELTA, _DELTA_END = b'"delta":"', b'"}' + FRAME_END
_JOINED = (b'data: {"type":"text-delta"', b'data: {"type":"reasoning-delta"')


@dataclass
class _Call:
    """A tool call whose arguments are still coming."""

    call_id: str
    name: str
    arguments: list[str] = field(default_factory=list)


class Chunks:
    """The chunks of one generation, each as JSON.

    Attributes:
        is_finished: `finish` has been given.
        is_over: that was before the log's end.
    """

    def __init__(self, meta: Meta) -> None:
        asked = dialect_of(meta)
        message_id = asked.get(MESSAGE_ID)
        self._generation_id = meta.generation_id
        self._message_id = message_id if isinstance(message_id, str) else meta.generation_id
        self._knows_reset_step = asked.get(RESET_STEP) is True
        self.is_finished = False
        self.is_over = False
        self._kind = ""  # of the open part: text, reasoning, or none
        self._part_id = b""
        self._parts = 0
        self._calls: dict[int, _Call] = {}
        self._has_step = False
        self._has_content = False

    def opening(self) -> list[bytes]:
        """Return what can be said before anything was generated."""
        return [_chunk("start", messageId=self._message_id)]

    def add(self, raw: bytes) -> list[bytes]:
        """Return the chunks of the next entry."""
        text = plain_text(raw)
        if text is not None:
            return self._delta("text", text)
        event = decode_known(raw)
        if event is None:
            return []
        return self._add(event)

    def failed(self, failure: Failure) -> list[bytes]:
        """Return the last words of an answer that failed."""
        return [_chunk("error", errorText=failure.message), _chunk("finish", finishReason="error")]

    def _add(self, event: AnyEvent) -> list[bytes]:
        match event:
            case Start() if not self._has_step:
                self._has_step = True
                return [_chunk("start-step")]
            case Token():
                return self._delta("text", _encode(event.text)[1:-1])
            case Reasoning():
                return self._delta("reasoning", _encode(event.text)[1:-1])
            case ToolCall():
                return self._tool_call(event)
            case Progress():
                # One part, in the same place, for each stage of the work.
                said = {"id": f"progress-{event.stage}", "data": _members(event)}
                return self._whole("data-progress", said)
            case Data():
                return self._whole(f"data-{event.name}", {"data": event.value})
            case File():
                url = event.url or f"data:{event.media_type};base64,{event.data}"
                return self._whole("file", {"url": url, "mediaType": event.media_type})
            case Reset() if self._has_content:
                return self._reset()
            case End():
                self.is_finished = True
                return self._end(event)
        return []

    def _delta(self, kind: str, text: bytes) -> list[bytes]:
        """Return a piece of text or reasoning; `text` is the inside of a JSON string."""
        opened: list[bytes] = []
        if self._kind != kind:
            opened = self._close_part()
            self._parts += 1
            self._kind, self._part_id = kind, b"%b-%d" % (kind.encode(), self._parts)
            opened.append(b'{"type":"%b-start","id":"%b"}' % (kind.encode(), self._part_id))
        self._has_content = True
        delta = b'{"type":"%b-delta","id":"%b","delta":"%b"}' % (
            self._kind.encode(), self._part_id, text,
        )  # fmt: skip
        return [*opened, delta]

    def _close_part(self) -> list[bytes]:
        if not self._kind:
            return []
        closed = b'{"type":"%b-end","id":"%b"}' % (self._kind.encode(), self._part_id)
        self._kind = ""
        return [closed]

    def _whole(self, kind: str, members: dict[str, Any]) -> list[bytes]:
        """Return a chunk that is a part of its own; what is open stays open."""
        self._has_content = True
        return [_chunk(kind, **members)]

    def _tool_call(self, event: ToolCall) -> list[bytes]:
        self._has_content = True
        chunks = self._close_part()
        call = self._calls.get(event.index)
        if call is None:
            call_id = event.call_id or f"{self._generation_id}-{event.index}"
            call = self._calls[event.index] = _Call(call_id, event.name or "tool")
            chunks.append(_chunk("tool-input-start", toolCallId=call.call_id, toolName=call.name))
        if event.arguments:
            call.arguments.append(event.arguments)
            said = {"toolCallId": call.call_id, "inputTextDelta": event.arguments}
            chunks.append(_chunk("tool-input-delta", **said))
        return chunks

    def _reset(self) -> list[bytes]:
        self._kind, self._calls, self._has_content = "", {}, False
        if self._knows_reset_step:
            return [_chunk("reset-step")]
        self.is_over = self.is_finished = True
        return self.failed(STREAM_RESET)

    def _end(self, end: End) -> list[bytes]:
        if end.status == "failed":
            return self.failed(end.error or GIVEN_UP)
        if end.status == "cancelled":
            # Tool calls stay without their input: nobody shall carry them out.
            finish = _chunk("finish", finishReason="other")
            return [*self._close_part(), _chunk("abort"), finish]
        inputs = [_input(self._calls[index]) for index in sorted(self._calls)]
        step = [_chunk("finish-step")] if self._has_step else []
        reason = _FINISH_REASONS.get(end.finish_reason, "other")
        return [*self._close_part(), *inputs, *step, _chunk("finish", finishReason=reason)]


class AiSdkFold(Fold):
    """The chunks as server-sent events."""

    def __init__(self, meta: Meta) -> None:
        self._chunks = Chunks(meta)

    def opening(self) -> bytes:
        return self._framed(self._chunks.opening())

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        framed = self._framed(self._chunks.add(raw))
        if self._chunks.is_over:
            self.over_at = event_id.seq
        return framed + DONE if self._chunks.is_finished else framed

    def aside(self, raw: bytes) -> bytes:
        return _frames(self._chunks.failed(failure_aside(raw))) + DONE

    def _framed(self, chunks: list[bytes]) -> bytes:
        self.given += len(chunks)
        return _frames(chunks)


AI_SDK = Dialect(
    "ai-sdk",
    AiSdkFold,
    headers=[(b"x-vercel-ai-ui-message-stream", b"v1")],
    is_numbered=True,
)


def joined(frames: bytes) -> bytes:
    """Return whole frames with each run of deltas of a part as one: for a client that counts none.

    data: {"type":"text-delta","id":"text-1","delta":" Hello"} LF LF
    ─────────────── head ────────────────────────────  text  ─ end ─
    """
    pieces: list[bytes] = []
    open_head = b""
    for frame in frames.split(FRAME_END)[:-1]:
        head, is_delta, text = frame.partition(_DELTA)
        if not is_delta or not head.startswith(_JOINED):
            pieces += (_DELTA_END, frame, FRAME_END) if open_head else (frame, FRAME_END)
            open_head = b""
        elif head == open_head:
            pieces.append(text.removesuffix(b'"}'))
        else:
            pieces += (_DELTA_END,) if open_head else ()
            pieces += (head, _DELTA, text.removesuffix(b'"}'))
            open_head = head
    return b"".join((*pieces, _DELTA_END) if open_head else pieces)


class AiSdkFrames(FrameFold):
    """The chunks on a socket, for the request that the client calls `request_id`."""

    def __init__(self, meta: Meta, request_id: str) -> None:
        self._chunks = Chunks(meta)
        self._named = _encode(request_id)
        self._given = 0

    def add(self, event_id: EventId, raw: bytes) -> Sequence[bytes]:
        frames = [*self.caught_up(), *self._framed(self._chunks.add(raw))]
        self.is_over = self._chunks.is_over
        return [*frames, self._frame("end")] if self._chunks.is_finished else frames

    def caught_up(self) -> Sequence[bytes]:
        """Say the opening, where no entry has done so yet."""
        if self._given:
            return ()
        return [self._frame("start"), *self._framed(self._chunks.opening())]

    def aside(self, raw: bytes) -> Sequence[bytes]:
        opening = self.caught_up()
        failed = self._framed(self._chunks.failed(failure_aside(raw)))
        return [*opening, *failed, self._frame("end")]

    def expired(self) -> Sequence[bytes]:
        return [b'{"type":"error","requestId":%b,"errorText":%b}' % (self._named, _encode(EXPIRED))]

    def _framed(self, chunks: list[bytes]) -> list[bytes]:
        frames = []
        for chunk in chunks:
            parts = (self._named, self._given, chunk)
            frames.append(b'{"type":"chunk","requestId":%b,"sequence":%d,"chunk":%b}' % parts)
            self._given += 1
        return frames

    def _frame(self, kind: str) -> bytes:
        return b'{"type":"%b","requestId":%b}' % (kind.encode(), self._named)


def ai_sdk_shape(error: RequestError) -> ErrorBody:
    """Return an error as a sentence: this client shows its user the body as it is."""
    said = f"{error.message} ({error.code})"
    return ErrorBody(said.encode(), b"text/plain; charset=utf-8")


def _chunk(kind: str, **members: Any) -> bytes:
    return _encode({"type": kind, **members})


def _frames(chunks: list[bytes]) -> bytes:
    return b"".join(b"data: %b\n\n" % chunk for chunk in chunks)


def _input(call: _Call) -> bytes:
    """Return the call with its whole input; what is no JSON is told to the client as it is."""
    text = "".join(call.arguments)
    named = {"toolCallId": call.call_id, "toolName": call.name}
    try:
        # Never decoded: what a model says may have more values than a node can decode meanwhile.
        value = msgspec.Raw(msgspec.json.format(text.encode(), indent=-1) if text else b"{}")
    except (msgspec.MsgspecError, RecursionError):
        wrong = "the model's arguments are no JSON"
        return _chunk("tool-input-error", **named, input=text, errorText=wrong)
    return _chunk("tool-input-available", **named, input=value)


def _members(event: Progress) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.to_builtins(event)
    members.pop("type", None)
    return members
