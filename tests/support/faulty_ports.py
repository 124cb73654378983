"""Ports behind which no proper model server listens, for tests of failing connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

READ_S = 10.0  # a client of these tests sends at once


@contextmanager
def plain_server(answer: bytes) -> Iterator[int]:
    """Answer these bytes to the first bytes of each connection and close it; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, answer), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
            thread.join()


@contextmanager
def closed_port() -> Iterator[int]:
    """Yield a port that refuses connections, and that no other process gets meanwhile."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but not listening
        yield unused.getsockname()[1]


def _serve(listener: socket.socket, answer: bytes) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.settimeout(READ_S)
            with connection, suppress(OSError):
                connection.recv(65_536)
                connection.sendall(answer)
