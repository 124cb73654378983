"""The bytes in the event loop's and the kernel's send buffer."""

from __future__ import annotations

import asyncio
import socket

import pytest

from api.transport.unacknowledged import unacknowledged_bytes
from tests.support.wait import until


class OnlyAsgi:
    """A transport with a write buffer and without a socket."""

    def abort(self) -> None:
        raise AssertionError("must not be aborted")

    def get_write_buffer_size(self) -> int:
        return 7


def test_without_a_transport_the_count_is_0() -> None:
    assert unacknowledged_bytes(None) == 0


def test_without_a_socket_only_the_loops_buffer_counts() -> None:
    assert unacknowledged_bytes(OnlyAsgi()) == 7


async def test_every_byte_that_the_peer_takes_reduces_the_count() -> None:
    """Even while the kernel takes no more bytes from the loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(listener.getsockname())
    out, _ = listener.accept()
    _, writer = await asyncio.open_connection(sock=out)
    writer.write(b"x" * 12_000_000)
    await until(lambda: unacknowledged_bytes(writer.transport) > 0, 5, "a full buffer")  # type: ignore[arg-type]
    buffered, before = (
        writer.transport.get_write_buffer_size(),
        unacknowledged_bytes(writer.transport),
    )  # type: ignore[arg-type]

    read = 0
    while read < 300_000:
        read += len(peer.recv(65_536))

    await until(lambda: unacknowledged_bytes(writer.transport) < before, 5, "progress")  # type: ignore[arg-type]
    assert buffered > 0
    writer.transport.abort()
    peer.close()
    listener.close()


async def test_with_a_closed_socket_only_the_loops_buffer_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Closed(OnlyAsgi):
        def get_extra_info(self, name: str) -> socket.socket:
            closed = socket.socket()
            closed.close()
            return closed

    assert unacknowledged_bytes(Closed()) == 7
