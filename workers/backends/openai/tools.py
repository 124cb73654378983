"""Which call a fragment of a tool call belongs to, for servers that do not agree on saying so.

OpenAI numbers the calls and names each once. Others leave the number away, repeat the id and name
on every fragment, or give number 0 to every call. Out come numbers from 0 without a hole, with id
and name on a call's first piece only. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.log.events import ToolCall


class FunctionDelta(msgspec.Struct):
    name: str | None = None
    arguments: Any = None  # a string; an object where a server sends calls whole


class ToolCallDelta(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: FunctionDelta | None = None


class ToolCalls:
    """The calls of one answer so far."""

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._by_index: dict[int, int] = {}  # the server's number -> ours
        self._is_named: list[bool] = []

    def read(self, delta: ToolCallDelta) -> ToolCall:
        function = delta.function or FunctionDelta()
        number = self._find(delta, function)
        call_id = delta.id or ""
        if call_id in self._by_id:
            call_id = ""
        elif call_id:
            self._by_id[call_id] = number
        name = "" if self._is_named[number] else function.name or ""
        self._is_named[number] |= bool(name)
        return ToolCall(number, call_id, name, _text(function.arguments))

    def _find(self, delta: ToolCallDelta, function: FunctionDelta) -> int:
        if delta.id:
            known = self._by_id.get(delta.id)
            return self._begin(delta.index) if known is None else known
        if delta.index is not None:
            known = self._by_index.get(delta.index)
            return self._begin(delta.index) if known is None else known
        if function.name or not self._is_named:
            return self._begin(None)  # no number and no id: a name begins the next call
        return len(self._is_named) - 1

    def _begin(self, index: int | None) -> int:
        number = len(self._is_named)
        self._is_named.append(False)
        if index is not None:
            self._by_index[index] = number
        return number


def _text(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else msgspec.json.encode(arguments).decode()
