r"""OpenAI chat completions: the log as chunks, and as one completion.

    data: {"id":"<generation>","object":"chat.completion.chunk","created":…,"model":"…",
           "choices":[{"index":0,"delta":{"content":" Hello"},"finish_reason":null}],
           "event_id":"1-42"} LF LF

`id` is the generation's id. `event_id` is not OpenAI's: it is the native cursor, with which a
client that was cut off can read on natively at any node. Invariant: no chunk contradicts an earlier
one. Chunks cannot take content back, so a `reset` after the first content is an error chunk, and
the stream ends with it.
Source: docs/protocol.md, "Chat completions".
"""

from __future__ import annotations

from typing import Any

import msgspec

from api.dialects.failure import STREAM_RESET
from api.dialects.openai_errors import error_object, failure_aside, failure_of
from shared.log.event_bytes import plain_text
from shared.log.events import (
    AnyEvent,
    Counts,
    End,
    Failure,
    Reasoning,
    Reset,
    Start,
    Token,
    ToolCall,
    Usage,
    decode_known,
)
from shared.log.fold import ByteFold, Dialect
from shared.log.ids import EventId
from shared.log.records import Meta
from shared.log.request import dialect_of
from shared.log.snapshot import Snapshot

INCLUDE_USAGE = "include_usage"  # a member of Request.dialect
DONE = b"data: [DONE]\n\n"
_CONTENT = b'"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]'


class ChatFold(ByteFold):
    """One completion as server-sent events."""

    def __init__(self, meta: Meta) -> None:
        includes_usage = dialect_of(meta).get(INCLUDE_USAGE) is True
        head = _head_members(meta, "chat.completion.chunk")
        self._head = b"data: " + msgspec.json.encode(head)[:-1] + b","
        # As at OpenAI: with `include_usage` every chunk has the member.
        self._usage_member = b',"usage":null' if includes_usage else b""
        self._includes_usage = includes_usage
        self._usage: Usage | Counts | None = None
        self._has_role = False
        self._has_content = False

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        text = plain_text(raw)
        if text is not None:
            self._has_content = True
            return self._frame(event_id, _CONTENT % text)
        event = decode_known(raw)
        if event is None:
            return b""
        return self._add(event_id, event)

    def _add(self, event_id: EventId, event: AnyEvent) -> bytes:
        match event:
            case Start() if not self._has_role:
                self._has_role = True
                return self._delta(event_id, {"role": "assistant", "content": ""})
            case Token():
                self._has_content = True
                return self._delta(event_id, {"content": event.text})
            case Reasoning():
                self._has_content = True
                return self._delta(event_id, {"reasoning_content": event.text})
            case ToolCall():
                self._has_content = True
                return self._delta(event_id, {"tool_calls": [_tool_call_delta(event)]})
            case Reset() if self._has_content:
                self.over_at = event_id.seq
                return _error_chunk(STREAM_RESET)
            case Usage():
                self._usage = event
            case End():
                return self._end(event_id, event)
        return b""

    def _end(self, event_id: EventId, end: End) -> bytes:
        failure = failure_of(end)
        if failure is not None:
            return _error_chunk(failure)
        choice = {"index": 0, "delta": {}, "finish_reason": end.finish_reason}
        finish = b'"choices":' + msgspec.json.encode([choice])
        usage = end.usage or self._usage
        if not self._includes_usage or usage is None:
            return self._frame(event_id, finish) + DONE
        # The cursor is in the last chunk only: a client that has it has both chunks.
        last = b'"choices":[],"usage":%b,"event_id":"%d-%d"}\n\n'
        counts = msgspec.json.encode(usage_object(usage))
        return (
            b"%b%b%b}\n\n" % (self._head, finish, self._usage_member)
            + self._head
            + last % (counts, *event_id)
            + DONE
        )

    def _delta(self, event_id: EventId, delta: dict[str, Any]) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        return self._frame(event_id, b'"choices":' + msgspec.json.encode([choice]))

    def _frame(self, event_id: EventId, choices: bytes) -> bytes:
        named = b',"event_id":"%d-%d"}\n\n' % event_id
        return self._head + choices + self._usage_member + named

    def aside(self, raw: bytes) -> bytes:
        return _error_chunk(failure_aside(raw))


CHAT = Dialect("chat", ChatFold)


def completion_object(meta: Meta, snapshot: Snapshot) -> dict[str, Any]:
    """Return the answer in one piece; `snapshot` has read the log up to `end`."""
    assert snapshot.end is not None
    message: dict[str, Any] = {"role": "assistant", "content": snapshot.text, "refusal": None}
    if snapshot.reasoning:
        message["reasoning_content"] = snapshot.reasoning
    if snapshot.tool_calls:
        message["content"] = snapshot.text or None
        message["tool_calls"] = [_tool_call_object(call) for call in snapshot.tool_calls]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": snapshot.end.finish_reason,
    }
    answer = {**_head_members(meta, "chat.completion"), "choices": [choice]}
    usage = snapshot.usage
    return {**answer, "usage": usage} if usage is not None else answer


def usage_object(usage: Usage | Counts) -> dict[str, int]:
    """Return the token counts under OpenAI's names."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def _head_members(meta: Meta, kind: str) -> dict[str, Any]:
    created = meta.created_at_ms // 1000
    return {"id": meta.generation_id, "object": kind, "created": created, "model": meta.model}


def _tool_call_delta(event: ToolCall) -> dict[str, Any]:
    function = {"arguments": event.arguments}
    if not event.call_id and not event.name:
        return {"index": event.index, "function": function}
    named = {"id": event.call_id, "type": "function"}
    return {"index": event.index, **named, "function": {"name": event.name, **function}}


def _tool_call_object(call: dict[str, Any]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call["call_id"], "type": "function", "function": function}


def _error_chunk(failure: Failure) -> bytes:
    error = error_object(failure.code, failure.message)
    return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n" + DONE
