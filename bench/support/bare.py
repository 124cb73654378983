"""The bare loop: a process that has sockets and frames, and only calls `send`.

Everything else is compared with it. It sends the same frames as Tailrace to as many readers,
without a log, a protocol, resuming or limits. A reader requests `/<n>` and gets stream `n`.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from bench.support.cpu import CORES

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FORMS = {
    "sse": b'id: 1-%d\nevent: token\ndata: {"text":%b}\n\n',
    "ndjson": b'{"id":"1-%d","type":"token","text":%b}\n',
    "ws": b'{"type":"token","id":"ID","event_id":"1-%d","text":%b}',
}
ID = "gen_0000000000000000000000"
LAST_CHUNK = b"0\r\n\r\n"
TICK_S = 0.005  # between two rounds of `many`

Send = Callable[[bytes], int]


def frames_of(kind: str, pieces: Sequence[str], generation_id: str = ID) -> list[bytes]:
    """Return what Tailrace writes to a socket for each of these tokens, byte for byte.

    The frames follow a `start`. For `ws` each is a WebSocket frame, otherwise a chunk.
    Source: docs/protocol.md.
    """
    frames = []
    for seq, text in enumerate(pieces, 2):
        data = FORMS[kind] % (seq, msgspec.json.encode(text))
        if kind == "ws":
            data = data.replace(b"ID", generation_id.encode(), 1)
            frames.append(b"\x81" + _size(len(data)) + data)
        else:
            frames.append(b"%x\r\n%b\r\n" % (len(data), data))
    return frames


def _size(count: int) -> bytes:
    """Return the payload length of a WebSocket frame. Source: RFC 6455, 5.2."""
    if count < 126:
        return bytes((count,))
    return b"\x7e" + count.to_bytes(2) if count < 1 << 16 else b"\x7f" + count.to_bytes(8)


class BareLoop:
    """The sockets of the process; runs one command of the parent after the other."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2_048)
        self._socks: list[socket.socket] = []
        self._unsent: dict[int, bytes] = {}

    def run(self) -> None:
        """Serve until the parent closes its end of the pipe."""
        self._pipe.send(self._listener.getsockname()[1])
        while True:
            try:
                name, args = self._pipe.recv()
            except EOFError:
                return
            self._pipe.send(getattr(self, name)(*args))

    def accept(self, readers: int) -> None:
        """Accept this many readers and send each a response head."""
        self._socks = [None] * readers  # type: ignore[list-item]
        for _ in range(readers):
            sock, _ = self._listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw = sock.recv(65_536)
            self._socks[int(raw.split(b" ", 2)[1][1:])] = sock
            sock.send(HEAD)
            sock.setblocking(False)

    def fan_out(self, frames: list[bytes], per_s: float) -> float:
        """Send each frame to every reader, `per_s` frames a second; return when the first left."""
        sends = [sock.send for sock in self._socks]
        began = time.monotonic()
        for n, frame in enumerate(frames):
            if per_s and (wait_s := began + n / per_s - time.monotonic()) > 0:
                time.sleep(wait_s)
            size = len(frame)
            for reader, send in enumerate(sends):
                try:
                    if (sent := send(frame)) == size:
                        continue
                except BlockingIOError:
                    sent = 0
                self._unsent[reader] = frame[sent:]
            while self._unsent:  # a socket is full: no reader continues before it took the frame
                self._flush()
        self._finish()
        return began

    def many(self, frames: list[list[bytes]], per_s: float) -> float:
        """Send each reader its own frames, `per_s` per second; every 5 ms those that are due."""
        sends = [sock.send for sock in self._socks]
        count, total = len(frames), len(frames) * len(frames[0])
        done, began = 0, time.monotonic()
        while done < total:
            due = min(total, 1 + int((time.monotonic() - began) * per_s * count))
            for n in range(done, due):
                sends[n % count](frames[n % count][n // count])
            done = due
            time.sleep(TICK_S)
        self._finish()
        return began

    def serve(self, body: bytes, readers: int) -> None:
        """Send the whole body to this many readers as they connect, as fast as they take it."""
        poll = select.epoll()
        poll.register(self._listener.fileno(), select.EPOLLIN)
        socks: dict[int, socket.socket] = {}
        left: dict[int, memoryview] = {}
        response, done = memoryview(HEAD + body), 0
        while done < readers:
            for fd, _ in poll.poll():
                if fd == self._listener.fileno():
                    sock, _ = self._listener.accept()
                    sock.setblocking(False)
                    socks[sock.fileno()], left[sock.fileno()] = sock, response
                    poll.register(sock.fileno(), select.EPOLLIN)
                    continue
                if left[fd] is response:
                    socks[fd].recv(65_536)
                    poll.modify(fd, select.EPOLLOUT)
                left[fd] = left[fd][socks[fd].send(left[fd]) :]
                if not left[fd]:
                    poll.unregister(fd)
                    done += 1
        self._socks = list(socks.values())

    def close(self) -> None:
        """Close all sockets of readers."""
        for sock in self._socks:
            sock.close()
        self._socks = []

    def _finish(self) -> None:
        for sock in self._socks:
            sock.send(LAST_CHUNK)

    def _flush(self) -> None:
        """Send the rest of unsent frames; wait until a socket takes some."""
        writable = select.select([], [self._socks[n] for n in self._unsent], [], 0.01)[1]
        for reader in [n for n in self._unsent if self._socks[n] in writable]:
            data = self._unsent.pop(reader)
            sent = self._socks[reader].send(data)
            if sent < len(data):
                self._unsent[reader] = data[sent:]


def run(pipe: Connection, cores: Sequence[int]) -> None:
    """Run the process until the parent closes its end of the pipe."""
    os.sched_setaffinity(0, cores)
    gc.disable()
    BareLoop(pipe).run()


class BareProcess:
    """The process, as a benchmark uses it.

    Attributes:
        port: where it listens; set on entry.
    """

    def __init__(self, cores: Sequence[int] = CORES) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(target=run, args=(self._theirs, list(cores)), daemon=True)
        self.port = 0

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    async def __aenter__(self) -> BareProcess:
        self._process.start()
        self._theirs.close()
        self.port = await asyncio.to_thread(self._pipe.recv)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pipe.close()
        await asyncio.to_thread(self._process.join, 10)
        self._process.kill()

    async def call(self, name: str, *args: Any) -> Any:
        """Run a method of `BareLoop` in the process; return its result."""
        self._pipe.send((name, args))
        return await asyncio.to_thread(self._pipe.recv)
