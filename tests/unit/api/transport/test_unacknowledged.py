"""What a peer has not taken: the loop's buffer and the kernel's."""

from __future__ import annotations

import asyncio
import socket

import pytest

from api.transport.unacknowledged import unread_bytes
from tests.support.wait import until


class OnlyAsgi:
    """A transport that shows its buffer and nothing below."""

    def abort(self) -> None:
        raise AssertionError("not here")

    def get_write_buffer_size(self) -> int:
        return 7


def test_without_a_transport_nothing_is_known() -> None:
    assert unread_bytes(None) == 0


def test_without_a_socket_the_buffer_counts() -> None:
    assert unread_bytes(OnlyAsgi()) == 7


async def test_every_byte_that_the_peer_takes_is_progress() -> None:
    """Also while the kernel takes nothing more from the loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(listener.getsockname())
    out, _ = listener.accept()
    _, writer = await asyncio.open_connection(sock=out)
    writer.write(b"x" * 12_000_000)
    await until(lambda: unread_bytes(writer.transport) > 0, 5, "a full buffer")  # type: ignore[arg-type]
    buffered, before = writer.transport.get_write_buffer_size(), unread_bytes(writer.transport)  # type: ignore[arg-type]

    taken = 0
    while taken < 300_000:
        taken += len(peer.recv(65_536))

    await until(lambda: unread_bytes(writer.transport) < before, 5, "progress")  # type: ignore[arg-type]
    assert buffered > 0
    writer.transport.abort()
    peer.close()
    listener.close()


async def test_a_closed_socket_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(OnlyAsgi):
        def get_extra_info(self, name: str) -> socket.socket:
            closed = socket.socket()
            closed.close()
            return closed

    assert unread_bytes(Closed()) == 7
