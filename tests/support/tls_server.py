"""A TLS server for tests of failing connections: a thread with blocking sockets.

A thread, because asyncio reports each failed handshake of a server as an error of the test.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

READ_S = 10.0  # a client of these tests sends or closes at once


@contextmanager
def tls_server(context: ssl.SSLContext) -> Iterator[int]:
    """Accept connections, do the handshake, read once and close; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, context), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
            thread.join()


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.settimeout(READ_S)
            with connection, suppress(OSError):  # ssl.SSLError is one
                with context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                ) as stream:
                    _talk(stream)


def _talk(stream: ssl.SSLSocket) -> None:
    try:
        stream.do_handshake()
        stream.recv(65_536)
    except ssl.SSLError:
        # A close with unread bytes would be a reset, and the client would lose the alert.
        socket.socket.shutdown(stream, socket.SHUT_WR)
        while socket.socket.recv(stream, 65_536):
            pass
