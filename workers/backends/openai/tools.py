"""Assigns fragments of tool calls to calls, for servers that mark them differently.

OpenAI numbers the calls and sends id and name of a call once. Other servers omit the number, repeat
id and name in every fragment, or give number 0 to every call. The result has consecutive numbers
from 0, with id and name only on the first fragment of a call. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.log.events import ToolCall


class FunctionDelta(msgspec.Struct):
    """The `function` member of a fragment."""

    name: str | None = None
    arguments: Any = None  # a string; an object if the server does not send fragments


class ToolCallDelta(msgspec.Struct):
    """One fragment of a tool call, as servers send it."""

    index: int | None = None
    id: str | None = None
    function: FunctionDelta | None = None


class ToolCalls:
    """The tool calls of one answer so far."""

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._by_index: dict[int, int] = {}  # the server's number -> ours
        self._has_name: list[bool] = []  # by our number

    def read(self, delta: ToolCallDelta) -> ToolCall:
        """Return the event for one fragment."""
        function = delta.function or FunctionDelta()
        number = self._find(delta, function)
        call_id = delta.id or ""
        if call_id in self._by_id:
            call_id = ""
        elif call_id:
            self._by_id[call_id] = number
        name = "" if self._has_name[number] else function.name or ""
        self._has_name[number] |= bool(name)
        return ToolCall(number, call_id, name, _text(function.arguments))

    def _find(self, delta: ToolCallDelta, function: FunctionDelta) -> int:
        if delta.id:
            number = self._by_id.get(delta.id)
            return self._begin(delta.index) if number is None else number
        if delta.index is not None:
            number = self._by_index.get(delta.index)
            return self._begin(delta.index) if number is None else number
        if function.name or not self._has_name:
            return self._begin(None)  # without number and id, a name begins the next call
        return len(self._has_name) - 1

    def _begin(self, index: int | None) -> int:
        number = len(self._has_name)
        self._has_name.append(False)
        if index is not None:
            self._by_index[index] = number
        return number


def _text(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else msgspec.json.encode(arguments).decode()
