"""Facts about an answer that stand in its chunks and choices: `system_fingerprint`, `logprobs`.

A fact waits for the next event, so that the fact needs no event of its own. A server repeats many
facts in every chunk. A repeated value is left out, unless it has a list, because the items of lists
are new pieces. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.log.events import Extra, Reasoning, Token
from shared.log.extra import merge_extra
from workers.backends.contract import BackendItem


class Facts:
    """The facts of one answer: those that wait, and the last value of each."""

    def __init__(self) -> None:
        self._waiting: dict[str, Any] = {}
        self._last: dict[str, dict[str, Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, part: str, facts: dict[str, Any]) -> bool:
        """Keep the facts of a part, `chunk` or `choice`; return whether one of them is new."""
        last = self._last.setdefault(part, {})
        new = {
            name: value
            for name, value in facts.items()
            if name not in last or last[name] != value or has_list(value)
        }
        if new:
            last.update(new)
            self._waiting = merge_extra(self._waiting, {part: new})
        return bool(new)

    def has(self, part: str, name: str) -> bool:
        """Whether the server has sent this fact."""
        return name in self._last.get(part, ())

    def take(self) -> dict[str, Any]:
        """Return the facts that wait, as a part of `extra`, and forget them."""
        taken, self._waiting = self._waiting, {}
        return taken


def has_list(value: Any) -> bool:
    """Whether there is a list in `value`."""
    if isinstance(value, dict):
        return any(map(has_list, value.values()))
    return isinstance(value, list)


def put_extra(items: list[BackendItem], begun: int, extra: dict[str, Any]) -> None:
    """Put `extra` into the first text of `items` from `begun` on, or into an event of its own."""
    for at in range(begun, len(items)):
        item = items[at]
        if isinstance(item, Token | Reasoning):
            items[at] = msgspec.structs.replace(item, extra=extra)
            return
    items.append(Extra(extra))
