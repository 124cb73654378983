"""A frame of a client that waits for its turn on a socket.

The memory of a large frame counts against the node's limit until the frame is served. When the node
needs the memory for another frame, this one is given up. Knows no dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.body_room import bodies_full


class WaitingFrame:
    """A request that waits.

    Attributes:
        size: bytes of the frame.
        release: gives the memory of the frame back; may be repeated.
    """

    def __init__(self, frame: dict[str, Any], size: int) -> None:
        self.size = size
        self.release: Callable[[], None] = lambda: None
        self._frame: dict[str, Any] | None = frame

    def give_up(self) -> None:
        """Forget the frame, because the node needs its memory."""
        self._frame = None

    def take_body(self) -> dict[str, Any]:
        """Return the members without null, and keep no reference to them.

        Raises:
            RequestError: 503 `bodies_full`, the frame was given up.
        """
        frame, self._frame = self._frame, None
        if frame is None:
            raise bodies_full()
        return {name: value for name, value in frame.items() if value is not None}
