"""The log of one generation as the stream events of LobeHub's agent runtime.

    {"type":"stream_chunk","operationId":"gen_…","stepIndex":0,"timestamp":…,
     "data":{"chunkType":"text","content":" Hello"}}

A generation is an operation with one step. Invariants: `agent_runtime_end` is the last event and
comes exactly once; the events depend only on the log and on meta, so the time of every event is
that of the generation. A `reset` is a chunk that replaces the text so far. Pure.
Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from api.dialects.failure import GENERATION_FAILED, shown
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
)
from shared.log.records import Meta

StreamEvent = dict[str, Any]

STATUSES = {"completed": "completed", "cancelled": "interrupted", "failed": "error"}
_TEXT, _REASONING = ("text", "content"), ("reasoning", "reasoning")  # kind of a chunk, its member


@dataclass
class _Call:
    call_id: str
    name: str
    arguments: str = ""


class StreamEvents:
    """Turns the entries of one log into stream events.

    Args:
        operation: the client's name for the generation; empty: the generation's id. LobeHub's
            client takes the end of an operation with another name for the end of another one.
    """

    def __init__(self, meta: Meta, operation: str = "") -> None:
        self._meta = meta
        self._operation = operation or meta.generation_id
        self._model = meta.model
        self._has_started = False
        self._calls: dict[int, _Call] = {}
        self._usage: Usage | Counts | None = None
        self._shown: set[tuple[str, str]] = set()  # kinds of chunks since the last reset
        self._snapshots = 0

    def opening(self) -> list[StreamEvent]:
        """Return the events before the first entry."""
        return [self._event("agent_runtime_init", {})]

    def add(self, event: AnyEvent | None) -> list[StreamEvent]:
        """Return the events of the next entry; None: an entry of a newer version."""
        return list(self._add(event)) if event is not None else []

    def closed(self, end: End) -> list[StreamEvent]:
        """Return the last events of an operation whose log ended, but not by its own runtime."""
        if end.status == "failed":
            return self.failed(end.error or GENERATION_FAILED)
        return [self._ended(STATUSES[end.status], f"the generation ended as {end.status}")]

    def failed(self, failure: Failure) -> list[StreamEvent]:
        """Return the last events of an operation that failed. Changes nothing."""
        told = shown(failure)
        error = {"error": told.message, "errorType": told.code, "phase": "model_execution"}
        return [self._event("error", error), self._ended("error", told.message)]

    def _add(self, event: AnyEvent) -> Iterator[StreamEvent]:
        match event:
            case Start():
                self._model = event.model
                if not self._has_started:
                    self._has_started = True
                    message = {"id": self._meta.generation_id, "model": event.model}
                    data = {"assistantMessage": message, "model": event.model}
                    yield self._event("stream_start", data)
            case Token() if event.text:
                yield self._chunk(_TEXT, event.text)
            case Reasoning() if event.text:
                yield self._chunk(_REASONING, event.text)
            case ToolCall():
                self._add_call(event)
            case Usage():
                self._usage = event
            case Reset():
                yield from self._reset()
            case End():
                yield from self._end(event)

    def _chunk(self, kind: tuple[str, str], text: str, **members: Any) -> StreamEvent:
        self._shown.add(kind)
        data = {"chunkType": kind[0], kind[1]: text, **members}
        return self._event("stream_chunk", data)

    def _add_call(self, event: ToolCall) -> None:
        call = self._calls.get(event.index)
        if call is None:
            call_id = event.call_id or f"{self._meta.generation_id}-{event.index}"
            call = self._calls[event.index] = _Call(call_id, event.name or "tool")
        call.arguments += event.arguments

    def _reset(self) -> Iterator[StreamEvent]:
        for kind in sorted(self._shown):
            self._snapshots += 1
            yield self._chunk(kind, "", snapshotMode="replace", snapshotSeq=self._snapshots)
        self._calls, self._usage, self._shown = {}, None, set()

    def _end(self, end: End) -> Iterator[StreamEvent]:
        if end.status == "failed":
            yield from self.failed(end.error or GENERATION_FAILED)
            return
        if self._calls and end.status == "completed":
            calls = [
                {
                    "id": call.call_id, "type": "default", "identifier": call.name,
                    "apiName": call.name, "arguments": call.arguments,
                }
                for _, call in sorted(self._calls.items())
            ]  # fmt: skip
            yield self._event("stream_chunk", {"chunkType": "tools_calling", "toolsCalling": calls})
        usage = end.usage or self._usage
        told = {"usage": _usage_of(usage)} if usage is not None else {}
        yield self._event("stream_end", {"finishReason": end.finish_reason, **told})
        reason = STATUSES[end.status]
        yield self._ended(reason, f"the generation ended as {end.status}")

    def _ended(self, reason: str, detail: str) -> StreamEvent:
        data = {
            "operationId": self._operation, "phase": "execution_complete",
            "reason": reason, "reasonDetail": detail, "finalState": {"status": reason},
        }  # fmt: skip
        return self._event("agent_runtime_end", data)

    def _event(self, kind: str, data: dict[str, Any]) -> StreamEvent:
        return {
            "type": kind, "operationId": self._operation, "stepIndex": 0,
            "timestamp": self._meta.created_at_ms, "data": data,
        }  # fmt: skip


def _usage_of(usage: Usage | Counts) -> dict[str, Any]:
    return {
        "totalInputTokens": usage.prompt_tokens,
        "totalOutputTokens": usage.completion_tokens,
        "totalTokens": usage.total_tokens,
    }


def status_of(meta: Meta) -> str:
    """Return the status of an operation in LobeHub's words."""
    return STATUSES.get(meta.status, "running")


encode = msgspec.json.encode
