"""Reads one member of `tool_calls` as a `Fragment`: functions, and custom tools. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from shared.log.extra import clean, is_empty
from workers.backends.openai.chunk import (
    CALL_MEMBERS,
    FUNCTION_MEMBERS,
    required_object,
    unknown_members,
)
from workers.backends.reading.half_pairs import HalfPairs
from workers.backends.reading.tools import Fragment

INDEX_MAX = 2**31  # of a tool call; a greater number is none


def read_fragment(member: Any, *, begun: int, halves: HalfPairs, warnings: set[str]) -> Fragment:
    """Return the fragment.

    Args:
        begun: how many calls have begun.
        halves: joins characters that two fragments of one call share.

    Raises:
        BackendError: a required member has another type.
    """
    call = required_object(member, "a tool call")
    function = required_object(call.get("function"), "function")
    extra = unknown_members(call, CALL_MEMBERS, warnings)
    if extra.get("type") == "function":
        del extra["type"]
    if inner := unknown_members(function, FUNCTION_MEMBERS, warnings):
        extra["function"] = inner
    name, arguments = function.get("name"), function.get("arguments")
    custom = extra.get("custom")
    if not function and isinstance(custom, dict):  # free text instead of JSON
        name, arguments = custom.pop("name", None), custom.pop("input", None)
        extra = {key: value for key, value in extra.items() if not is_empty(value)}
        extra["type"] = "custom"
    index, call_id = call.get("index"), _clean_text(call.get("id"))
    has_index = type(index) is int and 0 <= index < INDEX_MAX
    place = ("arguments", index if has_index else call_id or begun)
    return Fragment(
        index if has_index else None,
        call_id,
        _clean_text(name),
        halves.join(place, _arguments_text(arguments)),
        extra or None,
    )


def _arguments_text(arguments: Any) -> str:
    """Return arguments as text; a server that sends no fragments sends an object."""
    if isinstance(arguments, str):
        return arguments
    if arguments is None:
        return ""
    cleaned, _ = clean(arguments)
    return msgspec.json.encode(cleaned).decode()


def _clean_text(value: Any) -> str:
    """Return an id or a name as text; empty: the server sent none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text: str = clean(value)[0] if isinstance(value, str) else ""
    return text
