r"""The WebSocket protocol of /lobe/ws: flat frames with a `messageId`.

    {"type":"token","content":" Hello","messageId":"m1","id":"1-42"}

`id` is the event id; a client sends it back as the cursor of a `resume`. Events for which the
protocol has no frame (reasoning, tool calls, files, data) are left out. Invariant: each reading
gets exactly one `end`, also when its log is lost, and before the `end` of a failure an `error`.
Source: docs/protocol.md, "The protocol of /lobe/ws".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from api.dialects.failure import GENERATION_FAILED, shown
from shared.log.event_bytes import plain_text
from shared.log.events import (
    Counts,
    End,
    Failure,
    Progress,
    Reset,
    Token,
    Usage,
    decode,
    decode_known,
)
from shared.log.fold import FrameFold
from shared.log.ids import START, EventId
from shared.log.records import Meta

EXPIRED = Failure("expired", "the log of this message has expired before its end was read", False)
_encode = msgspec.json.encode


class LobeFrameFold(FrameFold):
    """The frames of one reading of one message.

    Args:
        is_resumed: the client sent `resume`, so it gets `resume_complete` when it has caught up.
    """

    joins = True
    restarts = True

    def __init__(self, meta: Meta, message_id: str, *, is_resumed: bool = False) -> None:
        self._message_id = message_id
        self._message_id_json = _encode(message_id)
        self._owes_complete = is_resumed
        self._has_gap = False
        self._status = meta.status
        self._usage: Usage | Counts | None = None

    def add(self, event_id: EventId, raw: bytes) -> Sequence[bytes]:
        text = plain_text(raw)
        if text is not None:
            self._set_running()
            parts = (text, self._message_id_json, *event_id)
            return (b'{"type":"token","content":"%b","messageId":%b,"id":"%d-%d"}' % parts,)
        event = decode_known(raw)
        if event is None:
            return ()
        self._set_running()
        match event:
            case Token():
                named = {"agent": event.agent} if event.agent else {}
                return (self._frame("token", event_id, content=event.text, **named),)
            case Progress():
                return (self._frame("progress", event_id, **_members_of(event)),)
            case Reset():
                self._usage = None
                return (self._frame("reset", event_id, reason=event.reason),)
            case Usage():
                self._usage = event
            case End():
                return self._end(event_id, event)
        return ()

    def caught_up(self) -> Sequence[bytes]:
        if not self._owes_complete:
            return ()
        self._owes_complete = False
        members = {"messageId": self._message_id, "status": self._status, "gap": self._has_gap}
        return (_encode({"type": "resume_complete", **members}),)

    def aside(self, raw: bytes) -> Sequence[bytes]:
        event = decode(raw)
        if isinstance(event, End):
            return (*self._end(START, event), *self.caught_up())
        assert isinstance(event, Reset)
        self._has_gap, self._usage = True, None
        return (self._frame("reset", START, reason=event.reason),)

    def expired(self) -> Sequence[bytes]:
        end = End("failed", "error", error=EXPIRED)
        return (*self._end(START, end), *self.caught_up())

    def _set_running(self) -> None:
        if self._status == "queued":
            self._status = "running"

    def _end(self, event_id: EventId, end: End) -> Sequence[bytes]:
        self._status = end.status
        usage = end.usage or self._usage
        members = {"status": end.status, "usage": _members_of(usage) if usage else None}
        frame = self._frame("end", event_id, **members)
        if end.status != "failed":
            return (frame,)
        return (_encode(failure_frame(end.error or GENERATION_FAILED, self._message_id)), frame)

    def _frame(self, kind: str, event_id: EventId, **members: Any) -> bytes:
        ids = {"messageId": self._message_id, "id": str(event_id)}
        return _encode({"type": kind, **ids, **members})


def failure_frame(failure: Failure, message_id: str) -> dict[str, Any]:
    """Return the `error` frame of a message that failed."""
    told = shown(failure)
    members = {"code": told.code, "message": told.message, "retryable": told.retryable}
    return {"type": "error", "messageId": message_id, **members}


def _members_of(event: Progress | Usage | Counts) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.to_builtins(event)
    members.pop("type", None)
    return members
