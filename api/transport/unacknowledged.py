"""How many written bytes of a connection the peer has not acknowledged.

The event loop's buffer alone is not enough: the kernel has megabytes of its own buffer and takes
more bytes only when about a third of that buffer is free. A peer that reads steadily would seem to
read nothing. The sum of both buffers falls with every byte that the peer acknowledges.
"""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import Any, Protocol


class BufferedTransport(Protocol):
    """The part of an asyncio transport that counts its own unsent bytes."""

    def get_write_buffer_size(self) -> int: ...


def unacknowledged_bytes(transport: BufferedTransport | None) -> int:
    """Return the bytes in the loop's and the kernel's send buffer; 0 without a transport.

    Without a socket (another ASGI server) only the loop's buffer counts.
    """
    if transport is None:
        return 0
    return transport.get_write_buffer_size() + _kernel_bytes(transport)


def _kernel_bytes(transport: Any) -> int:
    """Bytes without the peer's acknowledgement (tcp(7), SIOCOUTQ; the same number as TIOCOUTQ)."""
    get_extra_info = getattr(transport, "get_extra_info", None)
    connection = get_extra_info("socket") if get_extra_info is not None else None
    if connection is None:
        return 0
    try:
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except (OSError, ValueError):  # the socket is closed, or the system has no such request
        return 0
    return int(struct.unpack("i", answer)[0])
