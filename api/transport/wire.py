"""Direct writes to a connection, past ASGI's `send`, for bytes that go to many connections.

Knows no protocol: the caller writes complete chunks or frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Backpressure:
    """Whether a connection's write buffer is full; its protocol calls `pause` and `resume`.

    Attributes:
        is_paused: the buffer is full; a writer should stop.
        on_paused: called when the buffer becomes full.
        on_resumed: called when the buffer has room again.
    """

    __slots__ = ("is_paused", "on_paused", "on_resumed")

    def __init__(self) -> None:
        self.is_paused = False
        self.release()

    def release(self) -> None:
        """Remove the writer's callbacks, because the writer has finished."""
        self.on_paused = self.on_resumed = _do_nothing

    def pause(self) -> None:
        self.is_paused = True
        self.on_paused()

    def resume(self) -> None:
        self.is_paused = False
        self.on_resumed()


class HttpWire(Backpressure):
    """`scope["extensions"]["tailrace.wire"]` of an HTTP request: the transport's `write`.

    Chunks that are written here and bodies that are sent with `send` keep their order, because
    `send` buffers nothing.
    """

    __slots__ = ("write",)

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self.write: Callable[[bytes], None] = transport.write


def _do_nothing() -> None:
    pass
