"""The member `extra` of events: what a model server sent and this system does not interpret.

    {"chunk":{…},"choice":{…},"delta":{…}}     of token, reasoning, extra and end
    {…,"function":{…}}                         of tool_call: unknown members of the call
    {…}                                        of usage: unknown members

Each part is left out when it is empty. `clean` makes values storable. `merge` joins two objects;
`merge_extra` and `ExtraSoFar` join the extras of events. Pure; knows no vendor.
Source: docs/protocol.md, "Events".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from shared.text.json_values import INTEGERS
from shared.text.surrogates import join_halves

# Of a delta: thoughts for later turns, see docs/protocol.md, "Thoughts that go back".
REASONING_DETAILS = "reasoning_details"
DEPTH_MAX = 32  # levels of nesting that are kept
# Strings that name something: a repeated one is the same name, not a further piece of it.
_NAMES = frozenset(
    (
        "id",
        "type",
        "role",
        "name",
        "format",
        "mime_type",
        "media_type",
        "model",
        "call_id",
        "object",
    )
)


def is_empty(value: Any) -> bool:
    """Whether a member says nothing: null, or an empty string, list or object."""
    return value is None or value in ("", [], {})


def clean(value: Any) -> tuple[Any, bool]:
    """Return `value` as every JSON decoder can read it, and whether it had to be changed.

    NaN, infinities, integers beyond 64 bits and values below `DEPTH_MAX` levels become null. A lone
    half of a surrogate pair becomes U+FFFD.
    """
    changes: list[None] = []
    return _clean(value, DEPTH_MAX, changes), bool(changes)


def _clean(value: Any, levels: int, changes: list[None]) -> Any:
    match value:
        case str():
            if value.isascii():
                return value
            whole = join_halves(value)
            if whole != value:
                changes.append(None)
            return whole
        case float() if not math.isfinite(value):
            changes.append(None)
            return None
        case int() if not INTEGERS.start <= value < INTEGERS.stop:
            changes.append(None)
            return None
        case dict() | list() if levels == 0:
            changes.append(None)
            return None
        case dict():
            return {
                _clean(name, 1, changes): _clean(inner, levels - 1, changes)
                for name, inner in value.items()
            }
        case list():
            return [_clean(inner, levels - 1, changes) for inner in value]
    return value


def merge_extra(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> dict[str, Any]:
    """Join the extras of two events: `{"chunk","choice","delta"}`.

    In `delta` strings are pieces and are joined. In `chunk` and `choice` the last string counts.
    """
    joined = ExtraSoFar()
    for extra in (old, new):
        if extra:
            joined.add(extra)
    return joined.value


def merge(old: Mapping[str, Any], new: Mapping[str, Any], *, joins_strings: bool) -> dict[str, Any]:
    """Join two objects: lists are concatenated, objects merged, other values replaced."""
    pieces: dict[str, Any] = {}
    for members in (old, new):
        _collect(pieces, members, joins_strings=joins_strings)
    return _finished(pieces)


class ExtraSoFar:
    """The joined extras of many events. Pieces are joined on use: linear in their length."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, Any]] = {}

    def add(self, extra: Mapping[str, Any]) -> None:
        for part, members in extra.items():
            if isinstance(members, dict):
                pieces = self._parts.setdefault(part, {})
                _collect(pieces, members, joins_strings=part == "delta")

    @property
    def value(self) -> dict[str, Any]:
        return {part: _finished(pieces) for part, pieces in self._parts.items()}


class _Pieces(list[str]):
    """The pieces of one string."""


def _collect(into: dict[str, Any], members: Mapping[str, Any], *, joins_strings: bool) -> None:
    for name, value in members.items():
        before = into.get(name)
        match value:
            case dict():
                if not isinstance(before, dict):
                    before = into[name] = {}
                _collect(before, value, joins_strings=joins_strings)
            case list():
                if isinstance(before, list) and not isinstance(before, _Pieces):
                    before.extend(value)
                else:
                    into[name] = list(value)
            case str() if joins_strings and name not in _NAMES:
                if isinstance(before, _Pieces):
                    before.append(value)
                else:
                    into[name] = _Pieces((value,))
            case _:
                into[name] = value


def _finished(pieces: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pieces.items():
        if isinstance(value, _Pieces):
            found[name] = "".join(value)
        elif isinstance(value, dict):
            found[name] = _finished(value)
        else:
            found[name] = list(value) if isinstance(value, list) else value
    return found


def take_kept(extra: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the details in the `extra` of an event, and `extra` without them."""
    delta = extra.get("delta")
    details = delta.get(REASONING_DETAILS) if isinstance(delta, dict) else None
    if not isinstance(delta, dict) or not isinstance(details, list):
        return [], dict(extra)
    others = {name: value for name, value in delta.items() if name != REASONING_DETAILS}
    rest = {name: value for name, value in extra.items() if name != "delta"}
    return details, {**rest, "delta": others} if others else rest


def has_delta(extra: Mapping[str, Any] | None) -> bool:
    """Whether `extra` holds a piece of the answer, and not only facts about the answer."""
    return bool(extra and extra.get("delta"))
