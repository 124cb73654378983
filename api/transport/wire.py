"""The way past an ASGI server's `send`, for what is written to many connections at once.

Knows no protocol: whoever writes brings chunks or frames that are whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Pauses:
    """Whether a connection takes more; the protocol that owns it tells it."""

    __slots__ = ("is_paused", "on_paused", "on_resumed")

    def __init__(self) -> None:
        self.is_paused = False
        self.release()

    def release(self) -> None:
        """Nobody writes here any more."""
        self.on_paused = self.on_resumed = _nothing

    def pause(self) -> None:
        self.is_paused = True
        self.on_paused()

    def resume(self) -> None:
        self.is_paused = False
        self.on_resumed()


class DirectWire(Pauses):
    """What `scope["extensions"]["tailrace.wire"]` is: the transport's `write`, and when to stop.

    Chunks that are written here stand between those of `send`, which keeps none back.
    """

    __slots__ = ("write",)

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self.write: Callable[[bytes], None] = transport.write


def _nothing() -> None:
    pass
