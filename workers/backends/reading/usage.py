"""Collects the token counts of one answer under all names and from all places of known servers.

Servers send running counts in each chunk, a count per chunk, or zeros after the real numbers. So
the last value of each member that is not zero counts. An object with an impossible count is skipped
as a whole. Members without a meaning here are kept in `Usage.extra`. Pure.
"""

from __future__ import annotations

from typing import Any

from shared.log.events import TOKENS_MAX, Usage
from shared.log.extra import clean, is_empty

_NAMES = {
    "prompt_tokens": "prompt",
    "input_tokens": "prompt",
    "completion_tokens": "completion",
    "output_tokens": "completion",
    "total_tokens": "total",
}


class UsageCounter:
    """The counts of one answer so far."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._extra: dict[str, Any] = {}

    def add(self, raw: Any) -> None:
        """Add the value of one `usage` member; a value of another form is skipped."""
        if not isinstance(raw, dict):
            return
        counts: dict[str, int] = {}
        for name, part in _NAMES.items():
            value = raw.get(name)
            if value is None:
                continue
            count = _count(value)
            if count is None and part != "total":
                return
            if count is not None:
                counts[part] = counts.get(part) or count
        for part, count in counts.items():
            self._counts[part] = count or self._counts.get(part, 0)
        extra, _ = clean({name: value for name, value in raw.items() if name not in _NAMES})
        self._extra = _merge(self._extra, extra)

    def event(self) -> Usage | None:
        """Return the counts; None: the server has sent neither prompt nor completion tokens."""
        if "prompt" not in self._counts and "completion" not in self._counts:
            return None
        prompt, completion = self._counts.get("prompt", 0), self._counts.get("completion", 0)
        total = max(self._counts.get("total", 0), prompt + completion)
        return Usage(prompt, completion, total, self._extra or None)


def _count(value: Any) -> int | None:
    """Return a number of tokens that every client can represent; None: `value` is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= TOKENS_MAX else None


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return `old` with the members of `new`; an empty value or a zero replaces nothing."""
    merged = dict(old)
    for name, value in new.items():
        before = merged.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            merged[name] = _merge(before, value)
        elif not is_empty(value) and (value or name not in merged):
            merged[name] = value
    return merged
