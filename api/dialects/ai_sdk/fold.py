r"""Vercel's AI SDK: the log as UI message chunks, over HTTP and on a WebSocket.

    data: {"type":"start","messageId":"gen_…"} LF LF                       number 0
    data: {"type":"start-step"} LF LF
    data: {"type":"text-start","id":"text-1"} LF LF
    data: {"type":"text-delta","id":"text-1","delta":" Hello"} LF LF
    …
    data: {"type":"finish","finishReason":"stop"} LF LF
    data: [DONE] LF LF                                                      not counted

Invariants: `finish` is always the last chunk, because without it one client reconnects for ever; a
delta comes after its start; all chunk types are known to every version since 6, because an unknown
type ends the client's stream. `reset-step` is sent only to a client that has declared this
type. Clients count chunks, so the chunks depend only on the log and on the stored request.
Source: docs/protocol.md, "AI SDK".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from api.dialects.ai_sdk.provider_metadata import metadata
from api.dialects.failure import GENERATION_FAILED, STREAM_RESET, shown
from api.dialects.openai_errors import failure_aside
from api.errors import ErrorBody
from shared.errors import RequestError
from shared.log.event_bytes import plain_text
from shared.log.events import (
    AnyEvent,
    Data,
    End,
    Extra,
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
from shared.log.extra import merge, take_kept
from shared.log.fold import FRAME_END, ByteFold, Dialect, FrameFold
from shared.log.ids import EventId
from shared.log.records import Meta
from shared.log.request import dialect_of

# Members of Request.dialect.
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
_JOINABLE = (b'data: {"type":"text-delta"', b'data: {"type":"reasoning-delta"')


@dataclass
class _OpenToolCall:
    """A tool call whose arguments are still arriving, in pieces."""

    call_id: str
    name: str
    arguments: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


class ChunkBuilder:
    """Turns the entries of one log into chunks, each as JSON.

    Attributes:
        is_finished: `finish` has been returned.
        is_over: `finish` has been returned before the end of the log.
    """

    def __init__(self, meta: Meta) -> None:
        dialect = dialect_of(meta)
        message_id = dialect.get(MESSAGE_ID)
        self._generation_id = meta.generation_id
        self._message_id = message_id if isinstance(message_id, str) else meta.generation_id
        self._knows_reset_step = dialect.get(RESET_STEP) is True
        self.is_finished = False
        self.is_over = False
        self._kind = ""  # of the open part: text, reasoning, or none
        self._part_id = b""
        self._parts = 0
        self._calls: dict[int, _OpenToolCall] = {}
        self._kept: list[Any] = []  # thoughts for later turns, for the next part that ends
        self._has_step = False
        self._has_content = False

    def opening(self) -> list[bytes]:
        """Return the chunks that come before the first entry."""
        return [_encode_chunk("start", messageId=self._message_id)]

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
        """Return the last chunks of an answer that failed."""
        return [
            _encode_chunk("error", errorText=shown(failure).message),
            _encode_chunk("finish", finishReason="error"),
        ]

    def _add(self, event: AnyEvent) -> list[bytes]:
        if isinstance(event, Token | Reasoning | Extra) and event.extra:
            kept, _ = take_kept(event.extra)
            self._kept += kept
            if kept and isinstance(event, Extra) and self._kind == "reasoning":
                return self._close_part()  # the details end this thought
        match event:
            case Start() if not self._has_step:
                self._has_step = True
                return [_encode_chunk("start-step")]
            case Token():
                return self._delta("text", _encode(event.text)[1:-1])
            case Reasoning():
                return self._delta("reasoning", _encode(event.text)[1:-1])
            case ToolCall():
                return self._tool_call(event)
            case Progress():
                # A client replaces a part that has the same id, so each stage has one part.
                stage = f"{event.agent}-{event.stage}" if event.agent else event.stage
                members = {"id": f"progress-{stage}", "data": _members_of(event)}
                return self._complete_part("data-progress", members)
            case Data():
                return self._complete_part(f"data-{event.name}", {"data": event.value})
            case File():
                url = event.url or f"data:{event.media_type};base64,{event.data}"
                return self._complete_part("file", {"url": url, "mediaType": event.media_type})
            case Reset() if self._has_content:
                return self._reset()
            case End():
                self.is_finished = True
                return self._end(event)
        return []

    def _delta(self, kind: str, text: bytes) -> list[bytes]:
        """Return the chunks of a piece of text or reasoning.

        Args:
            kind: `text` or `reasoning`.
            text: the inside of a JSON string.
        """
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
        part_id, kept = self._part_id.decode(), metadata(self._take_kept())
        closed = _encode_chunk(f"{self._kind}-end", id=part_id, **kept)
        self._kind = ""
        return [closed]

    def _take_kept(self) -> list[Any]:
        kept, self._kept = self._kept, []
        return kept

    def _complete_part(self, kind: str, members: dict[str, Any]) -> list[bytes]:
        """Return a part that is one chunk; an open text or reasoning stays open."""
        self._has_content = True
        return [_encode_chunk(kind, **members)]

    def _tool_call(self, event: ToolCall) -> list[bytes]:
        self._has_content = True
        chunks = self._close_part()
        call = self._calls.get(event.index)
        if call is None:
            call_id = event.call_id or f"{self._generation_id}-{event.index}"
            call = self._calls[event.index] = _OpenToolCall(call_id, event.name or "tool")
            chunks.append(
                _encode_chunk("tool-input-start", toolCallId=call.call_id, toolName=call.name)
            )
        if event.extra:
            call.extra = merge(call.extra, event.extra, joins_strings=False)
        if event.arguments:
            call.arguments.append(event.arguments)
            members = {"toolCallId": call.call_id, "inputTextDelta": event.arguments}
            chunks.append(_encode_chunk("tool-input-delta", **members))
        return chunks

    def _reset(self) -> list[bytes]:
        self._kind, self._calls, self._has_content, self._kept = "", {}, False, []
        if self._knows_reset_step:
            return [_encode_chunk("reset-step")]
        self.is_over = self.is_finished = True
        return self.failed(STREAM_RESET)

    def _end(self, end: End) -> list[bytes]:
        if end.status == "failed":
            return self.failed(end.error or GENERATION_FAILED)
        if end.status == "cancelled":
            # Tool calls get no input chunk, so that the client does not execute them.
            finish = _encode_chunk("finish", finishReason="other")
            return [*self._close_part(), _encode_chunk("abort"), finish]
        closed = self._close_part()
        calls = [self._calls[index] for index in sorted(self._calls)]
        inputs = [_tool_input(call, self._take_kept()) for call in calls]
        step = [_encode_chunk("finish-step")] if self._has_step else []
        reason = _FINISH_REASONS.get(end.finish_reason, "other")
        return [*closed, *inputs, *step, _encode_chunk("finish", finishReason=reason)]


class AiSdkFold(ByteFold):
    """The chunks as server-sent events."""

    def __init__(self, meta: Meta) -> None:
        self._builder = ChunkBuilder(meta)

    def opening(self) -> bytes:
        return self._framed(self._builder.opening())

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        framed = self._framed(self._builder.add(raw))
        if self._builder.is_over:
            self.over_at = event_id.seq
        return framed + DONE if self._builder.is_finished else framed

    def aside(self, raw: bytes) -> bytes:
        return _sse_frames(self._builder.failed(failure_aside(raw))) + DONE

    def _framed(self, chunks: list[bytes]) -> bytes:
        self.given += len(chunks)
        return _sse_frames(chunks)


AI_SDK = Dialect(
    "ai-sdk",
    AiSdkFold,
    headers=[(b"x-vercel-ai-ui-message-stream", b"v1")],
    is_numbered=True,
    is_compressible=True,
)


def join_deltas(frames: bytes) -> bytes:
    """Return complete frames with each run of deltas of one part joined into one frame.

    Only for a client that does not count chunks.

    data: {"type":"text-delta","id":"text-1","delta":" Hello"} LF LF
    ─────────────── head ────────────────────────────  text  ─ end ─
    """
    pieces: list[bytes] = []
    open_head = b""
    for frame in frames.split(FRAME_END)[:-1]:
        head, is_delta, text = frame.partition(_DELTA)
        if not is_delta or not head.startswith(_JOINABLE):
            pieces += (_DELTA_END, frame, FRAME_END) if open_head else (frame, FRAME_END)
            open_head = b""
        elif head == open_head:
            pieces.append(text.removesuffix(b'"}'))
        else:
            pieces += (_DELTA_END,) if open_head else ()
            pieces += (head, _DELTA, text.removesuffix(b'"}'))
            open_head = head
    return b"".join((*pieces, _DELTA_END) if open_head else pieces)


class AiSdkFrameFold(FrameFold):
    """The chunks on a socket, for the client's request `request_id`."""

    def __init__(self, meta: Meta, request_id: str) -> None:
        self._builder = ChunkBuilder(meta)
        self._request_id_json = _encode(request_id)
        self._sequence = 0  # of the next chunk

    def add(self, event_id: EventId, raw: bytes) -> Sequence[bytes]:
        frames = [*self.caught_up(), *self._framed(self._builder.add(raw))]
        self.is_over = self._builder.is_over
        return [*frames, self._frame("end")] if self._builder.is_finished else frames

    def caught_up(self) -> Sequence[bytes]:
        """Return the opening, unless it has been sent with an entry."""
        if self._sequence:
            return ()
        return [self._frame("start"), *self._framed(self._builder.opening())]

    def aside(self, raw: bytes) -> Sequence[bytes]:
        opening = self.caught_up()
        failed = self._framed(self._builder.failed(failure_aside(raw)))
        return [*opening, *failed, self._frame("end")]

    def expired(self) -> Sequence[bytes]:
        parts = (self._request_id_json, _encode(EXPIRED))
        return [b'{"type":"error","requestId":%b,"errorText":%b}' % parts]

    def _framed(self, chunks: list[bytes]) -> list[bytes]:
        frames = []
        for chunk in chunks:
            parts = (self._request_id_json, self._sequence, chunk)
            frames.append(b'{"type":"chunk","requestId":%b,"sequence":%d,"chunk":%b}' % parts)
            self._sequence += 1
        return frames

    def _frame(self, kind: str) -> bytes:
        return b'{"type":"%b","requestId":%b}' % (kind.encode(), self._request_id_json)


def ai_sdk_shape(error: RequestError) -> ErrorBody:
    """Return an error as a sentence of plain text: this client shows the body to its user."""
    text = f"{error.message} ({error.code})"
    return ErrorBody(text.encode(), b"text/plain; charset=utf-8")


def _encode_chunk(kind: str, **members: Any) -> bytes:
    return _encode({"type": kind, **members})


def _sse_frames(chunks: list[bytes]) -> bytes:
    return b"".join(b"data: %b\n\n" % chunk for chunk in chunks)


def _tool_input(call: _OpenToolCall, kept: list[Any]) -> bytes:
    """Return the chunk with the complete input of a call; an error chunk if it is not JSON.

    Args:
        kept: thoughts for later turns that no other part has.
    """
    text = "".join(call.arguments)
    names = {"toolCallId": call.call_id, "toolName": call.name}
    try:
        # Not decoded: a model's output may have so many values that decoding would block the loop.
        value = msgspec.Raw(msgspec.json.format(text.encode(), indent=-1) if text else b"{}")
    except (msgspec.MsgspecError, RecursionError):
        wrong = "the model's arguments are no JSON"
        return _encode_chunk("tool-input-error", **names, input=text, errorText=wrong)
    back = metadata(kept, call.extra)
    return _encode_chunk("tool-input-available", **names, input=value, **back)


def _members_of(event: Progress) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.to_builtins(event)
    members.pop("type", None)
    return members
