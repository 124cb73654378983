"""The current state of a generation, folded from meta and log, as GET returns it.

The answer is the joined text since the last `reset`. Meta is read before the log, so the log may
hold an end that this meta does not have yet: then the log decides. Pure.
Source: docs/protocol.md, "Events" and "HTTP".
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.log.events import (
    AnyEvent,
    End,
    Extra,
    Reasoning,
    Reset,
    Token,
    ToolCall,
    Usage,
    decode,
    decode_known,
)
from shared.log.extra import ExtraSoFar, merge
from shared.log.ids import START, EventId
from shared.log.records import Meta
from shared.log.request import decode_request


class Snapshot:
    """The fold over one log.

    Args:
        meta: must have its request if the caller uses `fields`.
    """

    def __init__(self, meta: Meta) -> None:
        self.meta = meta
        self.last_event_id = START
        self._usage: dict[str, Any] | None = None
        self.end: End | None = read_end(meta)
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self._arguments: dict[int, list[str]] = {}  # by index of the call; joined on use
        self._extra = ExtraSoFar()

    def add(self, event_id: EventId, raw: bytes) -> None:
        """Add the next entry of the log."""
        self.last_event_id = event_id
        event = decode_known(raw)
        if event is not None:
            self._add(event)

    def _add(self, event: AnyEvent) -> None:
        if isinstance(event, Token | Reasoning | Extra | End) and event.extra:
            self._extra.add(event.extra)
        match event:
            case Token():
                self._text.append(event.text)
            case Reasoning():
                self._reasoning.append(event.text)
            case ToolCall():
                self._add_tool_call(event)
            case Reset():
                self._text, self._reasoning = [], []
                self._tool_calls, self._arguments = {}, {}
                self._extra = ExtraSoFar()
            case Usage():
                self._usage = msgspec.to_builtins(event)
                self._usage.pop("type")
            case End():
                self.end = event

    def _add_tool_call(self, event: ToolCall) -> None:
        call = self._tool_calls.setdefault(
            event.index, {"index": event.index, "call_id": "", "name": "", "arguments": ""}
        )
        call["call_id"] = call["call_id"] or event.call_id
        call["name"] = call["name"] or event.name
        self._arguments.setdefault(event.index, []).append(event.arguments)
        if event.extra:
            call["extra"] = merge(call.get("extra", {}), event.extra, joins_strings=False)

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tool calls by index: `index`, `call_id`, `name`, `arguments`, `extra?`."""
        return [
            {**self._tool_calls[index], "arguments": "".join(self._arguments[index])}
            for index in sorted(self._tool_calls)
        ]

    @property
    def extra(self) -> dict[str, Any]:
        """The members of the model server that no other member shows: see shared/log/extra.py."""
        return self._extra.value

    @property
    def usage(self) -> dict[str, Any] | None:
        """The counts in the `end` event, or else the last `usage` event."""
        if self.end is not None and self.end.usage is not None:
            return dict(msgspec.to_builtins(self.end.usage))
        return self._usage

    def fields(self) -> dict[str, Any]:
        """Return the JSON members of a snapshot."""
        request = decode_request(self.meta.request)
        return {
            **summary(self.meta, self.end),
            "attempt": max(self.meta.attempt, self.last_event_id.attempt),
            "text": self.text,
            "reasoning": self.reasoning,
            "tool_calls": self.tool_calls,
            "usage": self.usage,
            "extra": self.extra,
            "last_event_id": str(self.last_event_id),
            "messages": request.messages,
        }


def summary(meta: Meta, end: End | None = None) -> dict[str, Any]:
    """Return the JSON members of a generation in a listing, which need no log."""
    end = end or read_end(meta)
    return {
        "id": meta.generation_id,
        "status": end.status if end is not None else meta.status,
        "model": meta.model,
        "session": meta.session or None,
        "priority": meta.priority,
        "created_at": meta.created_at_ms // 1000,
        "ended_at": meta.ended_at_ms // 1000 or None,
        "attempt": meta.attempt,
        "finish_reason": end.finish_reason if end is not None else None,
        "error": msgspec.to_builtins(end.error) if end is not None and end.error else None,
        "metadata": msgspec.Raw(meta.metadata or b"{}"),
        "events_url": events_url(meta.generation_id),
    }


def progress(meta: Meta, now_ms: int, *, shows_worker: bool) -> dict[str, Any]:
    """Return the JSON members that say where a generation runs, and how long it has waited.

    Args:
        now_ms: ms since 1970; counts for a generation that waits.
        shows_worker: the name of a worker holds a host name, which is not for strangers.
    """
    return {
        "worker": (meta.worker or None) if shows_worker else None,
        "attempts": meta.begins,
        "waited_s": meta.waited_ms(now_ms) / 1000,
    }


def read_end(meta: Meta) -> End | None:
    """Return the `end` event in meta; None: unfinished."""
    if not meta.end:
        return None
    event = decode(meta.end)
    assert isinstance(event, End)
    return event


def events_url(generation_id: str) -> str:
    return f"/v1/generations/{generation_id}/events"
