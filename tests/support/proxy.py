"""A TCP proxy that misbehaves on command, between a process and Redis, or a reader and a node.

    client ──up──▶ proxy ──up──▶ target
           ◀─down─       ◀─down─

It can delay, stall (accept and forward nothing), refuse, cut after a number of bytes in either
direction (in mid-request, in mid-reply), and lose replies: the request arrives, its answer does
not, and the connection breaks. Settings act on open connections as well as on new ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Literal

from tests.support.listening import stop_listening

Direction = Literal["up", "down"]
CHUNK_BYTES = 65_536


class Proxy:
    """Use as `async with Proxy(host, port) as proxy`, then connect to `127.0.0.1:proxy.port`.

    Attributes:
        delay_s: each piece waits this long before it is passed on.
        cuts: how many connections the proxy has broken.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._budget: dict[Direction, int | None] = {"up": None, "down": None}
        self._is_losing_replies = False
        self._is_refusing = False
        self.delay_s = 0.0
        self.cuts = 0
        self.port = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._is_refusing = True
        await stop_listening(self._server)
        await self.cut()

    def aim(self, host: str, port: int) -> None:
        """Connect new connections to another target, as a load balancer does."""
        self._target = (host, port)

    def cut_after(self, count: int, direction: Direction) -> None:
        """Pass on `count` more bytes in `direction`, over all connections, then cut that one.

        One cut: connections made after it flow freely again.
        """
        self._budget[direction] = count

    def lose_replies(self) -> None:
        """From now on requests arrive; at the first byte of a reply its connection is cut. Once."""
        self._is_losing_replies = True

    def stall(self) -> None:
        """Forward nothing: a black hole. Connections are still accepted."""
        self._flowing.clear()

    def flow(self) -> None:
        """End `stall` and `refuse`; what was held back is delivered."""
        self._is_refusing = False
        self._flowing.set()

    async def refuse(self) -> None:
        """Cut what is open and break each new connection at once."""
        self._is_refusing = True
        await self.cut()

    def lead_to(self, port: int) -> None:
        """Connections made from now on go to this port: an address that follows the master."""
        self._target = (self._target[0], port)

    async def cut(self) -> None:
        """Break every open connection with a reset."""
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            # Only `cut` cancels these tasks, and asyncio's own callback would log it as an error.
            pass
        finally:
            self._connections.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target: asyncio.StreamWriter | None = None
        try:
            if self._is_refusing:
                return
            back, target = await asyncio.open_connection(*self._target)
            pumps = {
                asyncio.ensure_future(self._pump(reader, target, "up")),
                asyncio.ensure_future(self._pump(back, writer, "down")),
            }
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)
        except OSError:  # the target refuses: so does the proxy
            pass
        finally:
            self.cuts += 1
            _reset(writer)
            if target is not None:
                _reset(target)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: Direction
    ) -> None:
        """Copy until the source ends or the proxy cuts. Returning breaks the whole connection."""
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._flowing.wait()
                if direction == "down" and self._is_losing_replies:
                    self._is_losing_replies = False
                    return
                passed, is_cut = self._spend(direction, data)
                sink.write(passed)
                await sink.drain()
                if is_cut:
                    return

    def _spend(self, direction: Direction, data: bytes) -> tuple[bytes, bool]:
        budget = self._budget[direction]
        if budget is None:
            return data, False
        if len(data) < budget:
            self._budget[direction] = budget - len(data)
            return data, False
        self._budget[direction] = None
        return data[:budget], True


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side sees a reset and not an orderly end.

    What `write` could not hand to the kernel yet is lost as well: that is what a cut is.
    """
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
