"""Leaves out the events that the log has, where a server sends an answer again from its beginning.

The server gives the same answer: the same texts, calls and extras in the same order. Only the
borders between pieces may differ. The log holds a beginning of this answer, so each kind of content
is counted: its first characters, or its first events, are those of the log. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from shared.log.events import (
    AnyEvent,
    Extra,
    Reasoning,
    Reset,
    Token,
    ToolCall,
    Upstream,
    decode_known,
)
from shared.log.records import Entry
from workers.backends.contract import BackendItem


class Repetition:
    """What is left of the repetition.

    Args:
        log: the entries of the earlier attempts.
    """

    def __init__(self, log: Sequence[Entry]) -> None:
        self._text = self._thoughts = self._extras = 0
        self._arguments: dict[int, int] = {}  # characters by call; a call that has begun is here
        for _, raw in log:
            event = decode_known(raw)
            if isinstance(event, Reset):
                self._text = self._thoughts = self._extras = 0
                self._arguments.clear()
            elif event is not None:
                self._count(event)

    def _count(self, event: AnyEvent) -> None:
        match event:
            case Token():
                self._text += len(event.text)
            case Reasoning():
                self._thoughts += len(event.text)
            case ToolCall():
                self._arguments.setdefault(event.index, 0)
                self._arguments[event.index] += len(event.arguments)
        if isinstance(event, Token | Reasoning | Extra) and event.extra:
            self._extras += 1

    def rest_of(self, items: Iterable[BackendItem]) -> list[BackendItem]:
        """Return the items without what the log has."""
        rest: list[BackendItem] = []
        for item in items:
            match item:
                case Token():
                    left = self._text
                    self._text = max(left - len(item.text), 0)
                    rest += self._rest_of_text(item, left)
                case Reasoning():
                    left = self._thoughts
                    self._thoughts = max(left - len(item.text), 0)
                    rest += self._rest_of_text(item, left)
                case ToolCall():
                    rest += self._rest_of_call(item)
                case Extra():
                    if not self._is_known_extra():
                        rest.append(item)
                case Upstream():
                    pass  # the log names the answer
                case _:
                    rest.append(item)
        return rest

    def _rest_of_text(self, item: Token | Reasoning, left: int) -> list[BackendItem]:
        extra = item.extra
        if extra and self._is_known_extra():
            extra = None
        text = item.text[left:]
        if text:
            return [msgspec.structs.replace(item, text=text, extra=extra)]
        return [Extra(extra)] if extra else []

    def _is_known_extra(self) -> bool:
        self._extras -= 1
        return self._extras >= 0

    def _rest_of_call(self, call: ToolCall) -> list[BackendItem]:
        left = self._arguments.get(call.index)
        if left is None:
            return [call]
        self._arguments[call.index] = max(left - len(call.arguments), 0)
        arguments = call.arguments[left:]
        extra: dict[str, Any] | None = None if call.call_id else call.extra
        if not arguments and not extra:
            return []
        return [ToolCall(call.index, arguments=arguments, extra=extra)]
