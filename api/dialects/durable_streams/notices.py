"""Notifies subscriptions of appends, in the background, once at a time for each stream.

If appends arrive while the subscriptions of their stream are being notified, one more notification
follows for all of them. If this node dies before a notification, the jobs role sends it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol


class Notifier(Protocol):
    """As `Subscriptions` (shared/streams/subscriptions.py)."""

    async def notify(self, owner: str, path: str, *, is_new: bool = False) -> None: ...


class Notices:
    """The notices of one node.

    Args:
        spawn: runs a coroutine in the background.
    """

    def __init__(
        self, subscriptions: Notifier, spawn: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self._subscriptions = subscriptions
        self._spawn = spawn
        self._due: dict[tuple[str, str], bool] = {}  # a stream -> whether it is a new one
        self._running: set[tuple[str, str]] = set()

    def give(self, owner: str, path: str, *, is_new: bool = False) -> None:
        """Tell the subscriptions of an owner that a stream has new entries."""
        key = (owner, path)
        self._due[key] = self._due.get(key, False) or is_new
        if key not in self._running:
            self._running.add(key)
            self._spawn(self._run(key))

    async def _run(self, key: tuple[str, str]) -> None:
        try:
            while key in self._due:
                is_new = self._due.pop(key)
                await self._subscriptions.notify(*key, is_new=is_new)
        finally:
            self._running.discard(key)
            self._due.pop(key, None)
