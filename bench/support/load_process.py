"""The process with the readers: one epoll loop that reads sockets.

During a run the process stores bytes and arrival times; they are parsed after the run. So a reader
costs one `recv` for each write that reaches it, and a slow result is the server's. The commands
over the pipe are the methods `open`, `report`, `count`, `close`, …, and `opened` and `wait`, which
are answered later. Knows no asyncio.
"""

from __future__ import annotations

import gc
import os
import re
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from bench.support.wire import LENGTH, TextCheck

BUFFER_BYTES = 1 << 20
PING, PONG = 0x89, 0x8A
LAST_ID = re.compile(rb'"last_event_id":"([0-9-]+)"')


class ReaderRequest(NamedTuple):
    """The requests that a reader sends.

    Attributes:
        first: at once.
        then: after the first bytes have come: the first frame of a WebSocket.
        again: after each complete reply, with the new cursor: the next request of a long poll.
    """

    first: bytes
    then: bytes = b""
    again: bytes = b""


@dataclass(slots=True)
class Reader:
    """One connection.

    Attributes:
        end: the bytes that end its stream.
        reply: the incomplete reply of a long poll.
    """

    sock: socket.socket
    request: ReaderRequest
    end: bytes
    reply: bytes = b""
    arrivals: list[tuple[float, bytes]] = field(default_factory=list)
    tail: bytes = b""
    sent_bytes: int = 0

    def send(self, data: bytes) -> None:
        """Send bytes and count them."""
        self.sent_bytes += self.sock.send(data)


class Readers:
    """All connections of a run, and the loop that reads them."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._poll = select.epoll()
        self._poll.register(pipe.fileno(), select.EPOLLIN)
        self._readers: dict[int, Reader] = {}
        self._silent: set[int] = set()  # have got no byte yet
        self._open: set[int] = set()  # have not got the end yet
        self._asked: str = ""  # the command that is answered later
        self._deadline = 0.0
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)

    def run(self) -> None:
        """Serve until the parent closes its end of the pipe."""
        while True:
            timeout = max(0.0, self._deadline - time.monotonic()) if self._asked else -1
            for fd, mask in self._poll.poll(timeout):
                if fd == self._pipe.fileno():
                    if not self._command():
                        return
                elif (reader := self._readers.get(fd)) is None:
                    continue  # a command in the same poll result has closed it
                elif mask & select.EPOLLOUT:
                    self._send(fd, reader)
                else:
                    self._read(fd, reader)
            if self._asked:
                self._answer()

    # Commands of the parent

    def _command(self) -> bool:
        try:
            name, args = self._pipe.recv()
        except EOFError:
            return False
        if name in ("opened", "wait"):
            self._asked, self._deadline = name, time.monotonic() + args[0]
        else:
            self._pipe.send(getattr(self, name)(*args))
        return True

    def _answer(self) -> None:
        """Answer `opened` with the number of silent readers, `wait` with that of open ones."""
        left = self._silent if self._asked == "opened" else self._open
        if not left or time.monotonic() >= self._deadline:
            self._asked = ""
            self._pipe.send(len(left))

    def open(
        self, address: tuple[str, int], requests: Sequence[ReaderRequest], end: bytes
    ) -> float:
        """Start to connect one reader for each request, all at once; return the time."""
        began = time.monotonic()
        for request in requests:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect_ex(address)
            fd = sock.fileno()
            self._readers[fd] = Reader(sock, request, end)
            self._silent.add(fd)
            self._open.add(fd)
            self._poll.register(fd, select.EPOLLOUT)
        return began

    def report(self, kind: str, answers: Sequence[Sequence[str]], which: Sequence[int]) -> Any:
        """Return the result of each reader; `which` holds the index of its answer."""
        check = TextCheck(kind, answers)
        readers = self._readers.values()
        return [
            check.read(reader.arrivals, n, reader.sent_bytes)
            for reader, n in zip(readers, which, strict=True)
        ]

    def count(self, what: bytes) -> int:
        """Return how often all readers together have got these bytes."""
        bodies = (b"".join(data for _, data in r.arrivals) for r in self._readers.values())
        return sum(body.count(what) for body in bodies)

    def statuses(self) -> dict[bytes, int]:
        """Return status line -> number of readers; b"" for readers without a response."""
        found: dict[bytes, int] = {}
        for reader in self._readers.values():
            line = reader.arrivals[0][1].partition(b"\r\n")[0] if reader.arrivals else b""
            found[line] = found.get(line, 0) + 1
        return found

    def last_bytes(self, number: int) -> bytes:
        """Return the last bytes that one reader got."""
        arrivals = list(self._readers.values())[number].arrivals
        return b"".join(data for _, data in arrivals[-3:])[-200:]

    def received(self) -> list[bytes]:
        """Return all bytes that each reader got, in the order of `open`."""
        return [b"".join(data for _, data in r.arrivals) for r in self._readers.values()]

    def close(self) -> None:
        """Disconnect all readers and forget them."""
        for reader in self._readers.values():
            reader.sock.close()  # also removes it from the epoll
        self._readers.clear()
        self._silent.clear()
        self._open.clear()
        gc.collect()

    # Sockets

    def _send(self, fd: int, reader: Reader) -> None:
        error = reader.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise ConnectionError(os.strerror(error))
        reader.send(reader.request.first)
        self._poll.modify(fd, select.EPOLLIN)

    def _read(self, fd: int, reader: Reader) -> None:
        try:
            size = reader.sock.recv_into(self._buffer)
        except OSError:
            size = 0
        if not size:
            self._poll.unregister(fd)
            reader.sock.close()
            self._open.discard(fd)
            self._silent.discard(fd)
            return
        data = bytes(self._view[:size])
        if not reader.arrivals:
            self._silent.discard(fd)
            if reader.request.then:
                reader.send(reader.request.then)
        reader.arrivals.append((time.monotonic(), data))
        if data[0] == PING:
            self._pong(reader, data)
        if reader.request.again:
            self._poll_again(reader, data)
        ending = reader.tail + data
        if reader.end in ending:
            self._open.discard(fd)
        reader.tail = ending[-len(reader.end) + 1 :]

    def _pong(self, reader: Reader, data: bytes) -> None:
        """Answer a WebSocket ping, masked with zeros. No other transport starts with this byte."""
        size = data[1]
        reader.send(bytes((PONG, 0x80 | size)) + bytes(4) + data[2 : 2 + size])

    def _poll_again(self, reader: Reader, data: bytes) -> None:
        """Send the next long poll if the reply is complete."""
        reader.reply += data
        head_end = reader.reply.find(b"\r\n\r\n") + 4
        length = LENGTH.search(reader.reply, 0, max(head_end, 0))
        if length is None or len(reader.reply) < head_end + int(length[1]):
            return
        last = LAST_ID.search(reader.reply, head_end)
        if last is not None and reader.end not in reader.reply:
            reader.send(reader.request.again.replace(b"CURSOR", last[1]))
        reader.reply = b""


def run(pipe: Connection, cores: Sequence[int]) -> None:
    """Run the process until the parent closes its end of the pipe."""
    os.sched_setaffinity(0, cores)
    gc.disable()  # the process keeps millions of small objects, without reference cycles
    Readers(pipe).run()
