"""Sends a file: the headers, the byte range, and the bytes at the client's pace.

The client's pace is measured by the bytes that the client has taken. The bytes that the server has
buffered do not count, because its buffers hold hundreds of kilobytes. This module does not know
owners, and does not know where files are stored.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote

from starlette.types import ASGIApp, Receive, Scope, Send

from api.edge.transfer_limit import TransferTurn
from api.readers.disconnect import DisconnectWatcher
from api.transport.extensions import TRANSPORT
from api.transport.unacknowledged import unacknowledged_bytes
from shared.errors import FilesUnavailable
from shared.files.store import FileRecord

_RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})", re.ASCII)


class Download:
    """Sends one file, or a byte range of it, to one client.

    Args:
        begun: the ASGI message that begins the response.
        pieces: the bytes; the caller closes this generator.
        count: how many bytes of `pieces` to send.

    Attributes:
        has_begun: `begun` has been sent, so an error can only break the connection off.
    """

    def __init__(
        self, begun: dict[str, Any], pieces: AsyncGenerator[bytes, None], count: int
    ) -> None:
        self.has_begun = False
        self._begun = begun
        self._pieces = pieces
        self._left = count
        self._sent = 0
        self._first = b""

    async def open(self) -> None:
        """Read the first piece, so that a missing object is an error before the response begins.

        Raises:
            NotFound: the object is gone.
            Unavailable: the store did not answer.
        """
        self._first = await anext(self._pieces, b"")

    async def run(self, turn: TransferTurn, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the bytes; stop when the client disconnects.

        Raises:
            NotFound, Unavailable: the object is gone or too short, or the store did not answer.
            RequestError: 408, the client takes the bytes too slowly.
        """
        transport = scope.get("extensions", {}).get(TRANSPORT)
        turn.moved = lambda: max(0, self._sent - unacknowledged_bytes(transport))
        is_left = False

        def leave() -> None:
            nonlocal is_left
            is_left = True

        self.has_begun = True
        await send(self._begun)
        departure = DisconnectWatcher(receive, leave)
        try:
            piece, self._first = self._first, b""
            while not is_left and await self._send(piece, turn, send):
                piece = await anext(self._pieces, b"")
        finally:
            departure.close()

    async def _send(self, piece: bytes, turn: TransferTurn, send: Send) -> bool:
        """Send one piece; return whether more bytes have to follow."""
        if not piece:
            raise FilesUnavailable("the object is too short")
        piece = piece[: self._left]
        self._left -= len(piece)
        self._sent += len(piece)
        async with turn.waiting():
            await send({"type": "http.response.body", "body": piece, "more_body": self._left > 0})
        return self._left > 0


def head_only(begun: dict[str, Any]) -> ASGIApp:
    """Return the response to a HEAD request."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send(begun)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return answer


def content_start(record: FileRecord, start: int, stop: int) -> dict[str, Any]:
    """Return the ASGI message that begins a response with the bytes `start` to `stop` - 1."""
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", b"%d" % (stop - start)),
        (b"content-disposition", disposition(record.filename)),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", b"private, no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    is_part = stop - start < record.bytes
    if is_part:
        headers.append((b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, record.bytes)))
    status = 206 if is_part else 200
    return {"type": "http.response.start", "status": status, "headers": headers}


def byte_range(value: str, size: int) -> tuple[int, int]:
    """Return the start and the end (exclusive) of the bytes that a Range header asks for.

    A header that is absent, malformed or cannot be satisfied means the complete file.
    """
    match = _RANGE.fullmatch(value)
    if match is None:
        return 0, size
    start, stop = int(match[1]), int(match[2] or size) + (1 if match[2] else 0)
    return (start, min(stop, size)) if start < min(stop, size) else (0, size)


def disposition(filename: str) -> bytes:
    """Return a Content-Disposition for any file name (RFC 6266)."""
    plain = re.sub(r'[^\x20-\x7e]|["\\%]', "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}".encode()
