"""A TLS listener before a plain server: the wheel's server has no TLS of its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.listening import stop_listening
from tests.support.redis_server import RedisServer


@asynccontextmanager
async def tls_front(server: RedisServer, tls: ssl.SSLContext) -> AsyncIterator[int]:
    """Listen, and yield the port. The server may be started later."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await writer.start_tls(tls)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server.port)
        except OSError:  # the client gave up, for lack of time, or the server has ended before it
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(copy(reader, far_writer))
                group.create_task(copy(far_reader, writer))
        finally:
            writer.transport.abort()
            far_writer.transport.abort()

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                target.write(data)
        except OSError:
            pass
        target.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield listener.sockets[0].getsockname()[1]
    await stop_listening(listener)
    await listener.wait_closed()
