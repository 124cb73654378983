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
from api.dialects.openai_errors import failure_aside, failure_object, failure_of
from shared.log.event_bytes import plain_text
from shared.log.events import (
    AnyEvent,
    Counts,
    End,
    Extra,
    Failure,
    Reasoning,
    Reset,
    Start,
    Token,
    ToolCall,
    Usage,
    decode_known,
)
from shared.log.extra import has_delta
from shared.log.fold import ByteFold, Dialect
from shared.log.ids import EventId
from shared.log.records import Meta
from shared.log.request import dialect_of
from shared.log.snapshot import Snapshot

CUSTOM = "custom"  # `type` of a call of a custom tool
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
        self._has_begun = False
        self._role = b""  # the chunk with the role, until the first chunk that follows it
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
            case Start() if not self._has_begun:
                self._has_begun = True
                # Sent with the next chunk: LobeChat shows an error only if the error comes first.
                self._role = self._delta(event_id, {"role": "assistant", "content": ""})
            case Token():
                self._has_content = True
                return self._delta(event_id, _text_delta(event), event.extra)
            case Reasoning():
                self._has_content = True
                return self._delta(event_id, {"reasoning_content": event.text}, event.extra)
            case Extra():
                self._has_content = self._has_content or has_delta(event.extra)
                return self._delta(event_id, {}, event.extra)
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
        finish = _choices({}, end.finish_reason, end.extra)
        usage = end.usage or self._usage
        if not self._includes_usage or usage is None:
            return self._frame(event_id, finish) + DONE
        # The cursor is in the last chunk only: a client that has it has both chunks.
        last = b'"choices":[],"usage":%b,"event_id":"%d-%d"}\n\n'
        counts = msgspec.json.encode(usage_object(usage))
        return (
            self._take_role()
            + b"%b%b%b}\n\n" % (self._head, finish, self._usage_member)
            + self._head
            + last % (counts, *event_id)
            + DONE
        )

    def _delta(
        self, event_id: EventId, delta: dict[str, Any], extra: dict[str, Any] | None = None
    ) -> bytes:
        return self._frame(event_id, _choices(delta, None, extra))

    def _frame(self, event_id: EventId, choices: bytes) -> bytes:
        named = b',"event_id":"%d-%d"}\n\n' % event_id
        return self._take_role() + self._head + choices + self._usage_member + named

    def _take_role(self) -> bytes:
        """Return the chunk with the role, once. It has the event id of the `start`."""
        role, self._role = self._role, b""
        return role

    def aside(self, raw: bytes) -> bytes:
        return _error_chunk(failure_aside(raw))


CHAT = Dialect("chat", ChatFold, is_compressible=True)


def completion_object(meta: Meta, snapshot: Snapshot) -> dict[str, Any]:
    """Return the answer in one piece; `snapshot` has read the log up to `end`."""
    assert snapshot.end is not None
    extra = snapshot.extra
    message: dict[str, Any] = {
        "role": "assistant",
        "content": snapshot.text,
        "refusal": None,
        **_part(extra, "delta"),
    }
    if message["refusal"] and snapshot.text == message["refusal"]:
        message["content"] = None
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
        **_part(extra, "choice"),
    }
    head = _head_members(meta, "chat.completion")
    answer = {**_part(extra, "chunk"), **head, "choices": [choice]}
    usage = snapshot.usage
    if usage is None:
        return answer
    return {**answer, "usage": {**usage.pop("extra", {}), **usage}}


def usage_object(usage: Usage | Counts) -> dict[str, Any]:
    """Return the token counts under OpenAI's names, and what else the backend counted."""
    return {
        **(usage.extra or {}),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def _head_members(meta: Meta, kind: str) -> dict[str, Any]:
    created = meta.created_at_ms // 1000
    return {"id": meta.generation_id, "object": kind, "created": created, "model": meta.model}


# Members that the members of a backend never replace.
_OURS = {
    "chunk": ("id", "object", "created", "model", "choices", "usage", "event_id"),
    "choice": ("index", "delta", "message"),
    "delta": ("role", "content", "tool_calls"),
}


def _part(extra: dict[str, Any] | None, part: str) -> dict[str, Any]:
    """Return the members that a backend sent in one place and that this system did not read."""
    members = extra.get(part) if extra else None
    if not isinstance(members, dict):
        return {}
    return {name: value for name, value in members.items() if name not in _OURS[part]}


def _choices(delta: dict[str, Any], reason: str | None, extra: dict[str, Any] | None) -> bytes:
    """Return `choices` and the members of the chunk that the backend added, as JSON."""
    choice = {
        "index": 0,
        "delta": {**_part(extra, "delta"), **delta},
        "finish_reason": reason,
        **_part(extra, "choice"),
    }
    members = {"choices": [choice], **_part(extra, "chunk")}
    return msgspec.json.encode(members)[1:-1]


def _text_delta(event: Token) -> dict[str, Any]:
    """Return the delta of a text; a refusal has its own member, which `extra` holds."""
    is_refusal = "refusal" in _part(event.extra, "delta")
    return {} if is_refusal else {"content": event.text}


def _tool_call_delta(event: ToolCall) -> dict[str, Any]:
    members = _call_members({"arguments": event.arguments}, event.extra)
    if not event.call_id and not event.name:
        return {"index": event.index, **members}
    named = {"id": event.call_id, "type": "function"}
    function = {"name": event.name, "arguments": event.arguments}
    return {"index": event.index, **named, **_call_members(function, event.extra)}


def _tool_call_object(call: dict[str, Any]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"]}
    members = _call_members(function, call.get("extra"))
    return {"id": call["call_id"], "type": "function", **members}


def _call_members(function: dict[str, Any], extra: dict[str, Any] | None) -> dict[str, Any]:
    """Return the members of a call but its id: a function, or a custom tool with free text."""
    others = dict(extra or {})
    inner = others.pop("function", {})
    if others.get("type") == CUSTOM:
        function = {**function, "input": function["arguments"]}
        del function["arguments"]
        return {**others, "custom": function}
    return {**others, "function": {**inner, **function}}


def _error_chunk(failure: Failure) -> bytes:
    return b"data: " + msgspec.json.encode({"error": failure_object(failure)}) + b"\n\n" + DONE
