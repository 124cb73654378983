"""How much of what was written to a connection its peer has not taken.

The event loop's buffer alone says too little: the kernel keeps megabytes of its own and takes more
only when about a third of them is free, so a reader that drains steadily would look as if it stood
still. Both together fall with every byte that the peer acknowledges.
"""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import Any, Protocol


class Transport(Protocol):
    """The part of an asyncio transport that counts its own unsent bytes."""

    def get_write_buffer_size(self) -> int: ...


def unread_bytes(transport: Transport | None) -> int:
    """Return what the loop and the kernel hold for the peer; 0 where neither can be asked."""
    if transport is None:
        return 0
    return transport.get_write_buffer_size() + _kernel_bytes(transport)


def _kernel_bytes(transport: Any) -> int:
    """What the kernel has not seen acknowledged (tcp(7), SIOCOUTQ; the same number as TIOCOUTQ)."""
    get_extra_info = getattr(transport, "get_extra_info", None)
    connection = get_extra_info("socket") if get_extra_info is not None else None
    if connection is None:
        return 0
    try:
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except (OSError, ValueError):  # closed meanwhile, or a system that does not say
        return 0
    return int(struct.unpack("i", answer)[0])
