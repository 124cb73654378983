"""Members that a model server needs in later turns, as `providerMetadata` of UI messages. Pure.

Clients keep the metadata of a part and send it back with the message. The member `tailrace` has

    {"reasoning_details": […]}    of a text, a thought or a call
    {"extra": {…}}                of a call: members that only the model server knows

Source: docs/protocol.md, "Thoughts that go back".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shared.log.extra import REASONING_DETAILS

OURS = "tailrace"
EXTRA = "extra"
# A client keeps the metadata of a tool call under the first name, and of other parts under the
# second.
_NAMES = ("callProviderMetadata", "providerMetadata")
_FUNCTION = "function"


def metadata(details: list[Any], extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the members to add to a chunk; empty: there is nothing to send back."""
    found: dict[str, Any] = {REASONING_DETAILS: details} if details else {}
    if extra:
        found[EXTRA] = dict(extra)
    return {"providerMetadata": {OURS: found}} if found else {}


def details_in(parts: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Return the details in the parts of a message, in their order."""
    return [entry for part in parts for entry in _list_in(_ours(part).get(REASONING_DETAILS))]


def with_extra(call: dict[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call with the members that only the model server knows."""
    extra = _ours(part).get(EXTRA)
    if not isinstance(extra, dict):
        return call
    others = {name: value for name, value in extra.items() if name != _FUNCTION}
    function = extra.get(_FUNCTION)
    if isinstance(function, dict):
        call = call | {_FUNCTION: function | call[_FUNCTION]}
    return others | call


def _ours(part: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in _NAMES:
        found = part.get(name)
        ours = found.get(OURS) if isinstance(found, dict) else None
        if isinstance(ours, dict):
            return ours
    return {}


def _list_in(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
