"""Accepts the connections of a node that speaks TLS: TLS and plain HTTP on one port.

The first byte of a connection tells both apart: a TLS record begins with 0x16, and no HTTP request
does. The kernel keeps the byte (MSG_PEEK), so the loop's own TLS reads the whole hello. asyncio's
`create_server` holds one `SSLContext` for good; here each connection takes the certificate's
current one, so a renewed certificate needs no restart.

Invariant: each connection that has not finished its handshake is in `_beginning`, which is
bounded: at the bound the oldest one is closed, so silent peers cannot keep others out. A finished
connection belongs to uvicorn's protocol, whose own limits count from there on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Callable

from api.errors import request_error
from api.transport.certificate import Certificate
from api.transport.refusal import LINGER_S, encode_refusal

logger = logging.getLogger(__name__)

TLS_HANDSHAKE = b"\x16"  # the type of a TLS record that holds a handshake (RFC 8446, 5.1)
HANDSHAKE_S = 10.0  # for the first byte and the handshake, as for a request head
BEGINNING_MAX = 512  # connections that have not finished their handshake
ACCEPT_PAUSE_S = 0.1  # after an error of `accept`, for example no free file


class TlsListener:
    """Accepts on one listening socket until `close`; `run` does the work.

    Args:
        listener: non-blocking, listening.
        certificate: whose `context` each new connection uses.
        is_tls_only: plain HTTP is answered 400 `tls_required`.
    """

    def __init__(
        self, listener: socket.socket, certificate: Certificate, *, is_tls_only: bool
    ) -> None:
        self._listener = listener
        self._certificate = certificate
        self._is_tls_only = is_tls_only
        self._beginning: dict[asyncio.Task[None], None] = {}  # the oldest one first
        self._closing, self._closed = asyncio.Event(), asyncio.Event()

    async def run(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Give each connection a protocol, until `close`."""
        async with asyncio.TaskGroup() as group:
            accepting = group.create_task(self._accept(group, protocol), name="accept")
            await self._closing.wait()
            for task in (accepting, *self._beginning):
                task.cancel()
        self._closed.set()

    async def close(self) -> None:
        """Accept nothing more, and close the connections that have not finished their handshake."""
        self._closing.set()
        await self._closed.wait()

    async def _accept(
        self, group: asyncio.TaskGroup, protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError:
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            connection.setblocking(False)
            if len(self._beginning) >= BEGINNING_MAX:
                # Out of the table at once: several connections come in one turn of the loop, in
                # which no cancelled task ends, and each of them must end another one.
                oldest = next(iter(self._beginning))
                del self._beginning[oldest]
                oldest.cancel()
            task = group.create_task(self._begin(connection, protocol), name="handshake")
            self._beginning[task] = None
            task.add_done_callback(functools.partial(self._forget, connection))

    def _forget(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._beginning.pop(task, None)
        if task.cancelled():
            connection.close()  # a task that was cancelled before its first step has not done it

    async def _begin(
        self, connection: socket.socket, protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                is_tls = await _first_byte(connection) == TLS_HANDSHAKE
                if not is_tls and self._is_tls_only:
                    await _refuse(connection)
                    return
                context = self._certificate.context if is_tls else None
                await loop.connect_accepted_socket(protocol, connection, ssl=context)
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            connection.close()
        except BaseException:
            connection.close()
            raise


async def _first_byte(connection: socket.socket) -> bytes:
    """Wait for the first byte and leave it in the socket; empty: the peer has closed its side."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)
    return connection.recv(1, socket.MSG_PEEK)


async def _refuse(connection: socket.socket) -> None:
    """Answer a plain request, and read until the peer closes, so that it gets the answer."""
    loop = asyncio.get_running_loop()
    with contextlib.closing(connection):
        error = request_error("tls_required", "this port speaks TLS only: use https:// or wss://")
        await loop.sock_sendall(connection, encode_refusal(error))
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while await loop.sock_recv(connection, 65_536):
                    pass
