"""The network of the scenarios in clients/scenarios.json, between one client and the nodes.

The proxy reads the head of the first request on each connection, may answer in a node's place, and
then passes bytes. It counts connections. All faults are members of one object, `Faults`.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from tests.support.listening import stop_listening

CHUNK_BYTES = 65_536
HEAD_BYTES_MAX = 65_536
PORTAL = b"<!doctype html><title>Sign in</title><form action=/login>Welcome to the hotel</form>"


@dataclass(slots=True)
class Faults:
    """What happens to the connections, counted from the first one.

    Attributes:
        cut_bytes: cut each of the first `cuts` connections after so many bytes of the answer.
        cut_up_bytes: cut each of the first `cuts` connections after so many bytes of the client.
        stall_bytes: pass so many bytes of the answer on each of the first `stalls` connections,
            and then nothing, while the connection stays open.
        delay_s: wait before each piece.
        answers: statuses with which the first connections are answered: 502 and 503 as HTML, and
            200 as the page of a captive portal.
        is_upgrade_stripped: take the header `Upgrade` out of each request.
        is_buffered: pass a chunked answer when it is complete, and not before.
        resets_after_101: reset so many WebSockets right after the handshake.
    """

    cut_bytes: int = 0
    cut_up_bytes: int = 0
    cuts: int = 0
    stall_bytes: int = 0
    stalls: int = 0
    delay_s: float = 0.0
    answers: Sequence[int] = ()
    is_upgrade_stripped: bool = False
    is_buffered: bool = False
    resets_after_101: int = 0

    @classmethod
    def read(cls, members: dict[str, Any]) -> Self:
        """Return the faults of a row; unknown members are an error."""
        assert members.keys() <= {each.name for each in fields(cls)}, members
        return cls(**members)


class ScenarioProxy:
    """Use as an async context manager; then connect to `url`.

    Attributes:
        connections: how many a client has opened.
        connected_at: when each was opened, s.
        node_left_at: when the test took a node away, s; 0: it did not.
        tries: how many of them were made while the network was away.
        upgrades: how many of them asked for a WebSocket.
        down_bytes: how many bytes of answers were passed.
        up_bytes: how many bytes came from clients after the first head of each connection.
    """

    def __init__(self, ports: Sequence[int], faults: Faults | None = None) -> None:
        self.ports = list(ports)
        self.faults = faults or Faults()
        self.connections = 0
        self.connected_at: list[float] = []
        self.node_left_at = 0.0
        self.tries = 0
        self.resets = 0
        self.upgrades = 0
        self.down_bytes = 0
        self.up_bytes = 0
        self.is_away = False
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self.is_away = True
        await stop_listening(self._server)
        await self._cut()

    async def go_away(self) -> None:
        """Cut everything, and break each new connection, until `come_back`."""
        self.is_away = True
        await self._cut()

    def come_back(self) -> None:
        self.is_away = False

    def crowd(self, window_s: float) -> int:
        """Return how many connections came at most within so long, after a node was taken away."""
        times = [at for at in self.connected_at if at >= self.node_left_at]
        return max(
            (bisect.bisect_left(times, at + window_s) - n for n, at in enumerate(times)), default=0
        )

    async def _cut(self) -> None:
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        number, self.connections = self.connections, self.connections + 1
        self.connected_at.append(time.monotonic())
        try:
            if self.is_away:
                self.tries += 1
            else:
                await self._serve(number, reader, writer)
        except (asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            pass  # cut by this proxy or by its peers: both ends are reset below
        finally:
            self._open.discard(task)
            _reset(writer)

    async def _serve(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if number < len(self.faults.answers):
            writer.write(_page(self.faults.answers[number]))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            return
        if self.faults.is_upgrade_stripped:
            lines = head.split(b"\r\n")
            head = b"\r\n".join(line for line in lines if not line.lower().startswith(b"upgrade:"))
        back, target = await self._reach(number)
        try:
            target.write(head)
            is_upgrade = b"\r\nupgrade: websocket" in head.lower()
            self.upgrades += is_upgrade
            up = asyncio.ensure_future(self._up(number, reader, target, len(head)))
            down = asyncio.ensure_future(self._down(number, back, writer, is_upgrade=is_upgrade))
            try:
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                up.cancel()
                down.cancel()
                await asyncio.wait({up, down})
        finally:
            _reset(target)

    async def _up(
        self, number: int, source: asyncio.StreamReader, sink: asyncio.StreamWriter, passed: int
    ) -> None:
        """Copy what the client says, after a head of so many bytes, until a fault cuts it."""
        cut = self.faults.cut_up_bytes if number < self.faults.cuts else 0
        while data := await source.read(CHUNK_BYTES):
            self.up_bytes += len(data)
            if cut and passed + len(data) >= cut:
                sink.write(data[: max(0, cut - passed)])
                await sink.drain()
                return
            passed += len(data)
            sink.write(data)
            await sink.drain()

    async def _reach(self, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a node that takes connections: what a load balancer does."""
        for offset in range(len(self.ports)):
            port = self.ports[(number + offset) % len(self.ports)]
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
        raise ConnectionRefusedError

    async def _down(
        self,
        number: int,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        *,
        is_upgrade: bool,
    ) -> None:
        """Copy an answer until it ends or a fault stops it. To return breaks the connection."""
        faults, passed = self.faults, 0
        if is_upgrade and self.resets < faults.resets_after_101:
            self.resets += 1
            sink.write(await source.readuntil(b"\r\n\r\n"))
            await sink.drain()
            return
        cut = faults.cut_bytes if number < faults.cuts else None
        stall = faults.stall_bytes if number < faults.stalls else None
        held = b""
        while data := await source.read(CHUNK_BYTES):
            if faults.delay_s:
                await asyncio.sleep(faults.delay_s)
            is_chunked = data.startswith(b"HTTP/1.1 200") and b"chunked" in data[:1_000]
            if held or (faults.is_buffered and is_chunked):
                held += data
                if not held.endswith(b"0\r\n\r\n"):
                    continue
                data, held = held, b""
            if stall is not None and passed + len(data) > stall:
                sink.write(data[: stall - passed])
                await asyncio.Event().wait()
            if cut is not None and passed + len(data) >= cut:
                sink.write(data[: cut - passed])
                await sink.drain()
                self.down_bytes += cut - passed
                return
            passed += len(data)
            self.down_bytes += len(data)
            sink.write(data)
            await sink.drain()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK_BYTES):
            sink.write(data)
            await sink.drain()


def _page(status: int) -> bytes:
    body = PORTAL if status == 200 else b"<html><h1>%d</h1></html>" % status
    head = (
        b"HTTP/1.1 %d X\r\ncontent-type: text/html\r\ncontent-length: %d\r\nconnection: close\r\n"
    )
    return head % (status, len(body)) + b"\r\n" + body


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the peer sees a reset. Bytes that the kernel has taken still leave first."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
