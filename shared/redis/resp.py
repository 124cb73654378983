"""Redis's wire on sockets of our own, for the two paths that every token takes.

redis-py is right for everything else; where thousands of small calls or messages a second pass, its
general way costs more than the work. Here: how a URL becomes a connection, how requests look, and
`AutoPipeline`, which sends many calls in one write and gives all their answers at once.
Source: redis.io/docs/reference/protocol-spec (RESP2).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import hiredis
from redis._parsers import BaseParser
from redis.asyncio.connection import SSLConnection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.errors import Unavailable

CONNECT_S = 1.5

P = TypeVar("P", bound=asyncio.Protocol)


class RedisAddress:
    """Where a URL leads, as redis-py reads it: redis://, rediss:// or unix://."""

    def __init__(self, url: str) -> None:
        self._options: dict[str, Any] = dict(parse_url(url))

    async def open(self, new_protocol: Callable[[], P]) -> P:
        """Connect.

        Raises:
            OSError: nobody is there, or TLS failed.
        """
        loop, options = asyncio.get_running_loop(), self._options
        if "path" in options:
            _, protocol = await loop.create_unix_connection(new_protocol, options["path"])
        else:
            host, port = options.get("host", "localhost"), int(options.get("port", 6379))
            _, protocol = await loop.create_connection(new_protocol, host, port, ssl=self._tls())
        return protocol

    @property
    def login(self) -> list[bytes]:
        """The AUTH that has to come first; empty: none."""
        password = self._options.get("password")
        if not password:
            return []
        user = self._options.get("username")
        return [b"AUTH", *(part.encode() for part in (user, password) if part)]

    @property
    def database(self) -> int:
        return int(self._options.get("db") or 0)

    def _tls(self) -> ssl.SSLContext | None:
        """Return redis-py's own reading of a rediss:// URL, so that all connections trust alike."""
        if self._options.get("connection_class") is not SSLConnection:
            return None
        options = {key: value for key, value in self._options.items() if key.startswith("ssl_")}
        context: ssl.SSLContext = SSLConnection(**options).ssl_context.get()
        return context


def encode(words: Iterable[bytes]) -> bytes:
    """Return one request."""
    parts = list(words)
    return b"*%d\r\n" % len(parts) + encode_words(parts)


def encode_words(words: Iterable[bytes]) -> bytes:
    """Return a part of a request: the words without their number."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def as_bytes(word: bytes | str | int) -> bytes:
    """Return a word as it is sent."""
    if type(word) is bytes:
        return word
    return b"%d" % word if type(word) is int else str(word).encode()


class AutoPipeline:
    """One connection for many calls: what is asked in one go is sent in one write.

    Several exchanges may be under way; answers come in the order of the calls. When one of them is
    not answered in time the connection is given up, for all of them: whatever hangs, hangs for all.
    The next exchange makes another connection.

    Args:
        answer_s: how long all answers of one exchange may take, s.
    """

    def __init__(self, url: str, *, answer_s: float) -> None:
        self._url = url
        self._answer_s = answer_s
        self._connecting = asyncio.Lock()
        self._is_closed = False
        self._connection: _Connection | None = None

    async def ask(self, requests: bytes, count: int) -> list[Any]:
        """Send `requests` and return their `count` answers, error replies among them.

        Raises:
            Unavailable: no answer, or not all of them; each call may have happened.
        """
        try:
            connection = self._connection
            if connection is None or connection.is_lost:
                async with asyncio.timeout(self._answer_s):
                    connection = await self._connect()
            answers = await connection.ask(requests, count)
        except TimeoutError as exc:
            self._give_up()
            raise Unavailable("Redis cannot be reached: no answer in time") from exc
        except (OSError, hiredis.HiredisError) as exc:
            raise Unavailable(f"Redis cannot be reached: {exc}") from exc
        for answer in answers:
            if isinstance(answer, RedisConnectionError):  # it loads its data, or lets nobody in
                raise Unavailable(f"Redis cannot be reached: {answer}") from answer
        return answers

    async def run(self, commands: Sequence[Sequence[bytes | str | int]]) -> list[Any]:
        """Send commands in one write; their answers in order, error replies among them.

        Raises:
            Unavailable: as `ask`.
        """
        requests = b"".join([encode(map(as_bytes, command)) for command in commands])
        return await self.ask(requests, len(commands))

    async def _connect(self) -> _Connection:
        async with self._connecting:
            if self._connection is not None and not self._connection.is_lost:
                return self._connection
            if self._is_closed:
                raise ConnectionAbortedError("closed")
            async with asyncio.timeout(CONNECT_S):
                target = RedisAddress(self._url)
                connection = await target.open(lambda: _Connection(self._answer_s))
                try:
                    await _greet(connection, target)
                    if self._is_closed:
                        raise ConnectionAbortedError("closed meanwhile")
                except BaseException:
                    connection.abort()
                    raise
            self._connection = connection
            return connection

    async def aclose(self) -> None:
        """Nothing more is asked here; returns when the connection is gone."""
        self._is_closed = True
        connection = self._connection
        self._give_up()
        if connection is not None:
            await connection.lost.wait()

    def _give_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()


async def _greet(connection: _Connection, target: RedisAddress) -> None:
    greeting = [encode(target.login)] if target.login else []
    if target.database:
        greeting.append(encode([b"SELECT", b"%d" % target.database]))
    for request in greeting:
        (answer,) = await connection.ask(request, 1)
        if isinstance(answer, Exception):
            raise OSError(str(answer))


class _Waiting:
    """One exchange that is under way, since `at_s` on the loop's clock."""

    __slots__ = ("answers", "at_s", "count", "done")

    def __init__(self, count: int, at_s: float) -> None:
        self.count = count
        self.at_s = at_s
        self.answers: list[Any] = []
        self.done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()


class _Connection(asyncio.Protocol):
    """A connection, and who waits for what comes next on it.

    One timer for all exchanges: it looks when the oldest one could be overdue. A timeout of its own
    for each would cost as much as the exchange.
    """

    def __init__(self, answer_s: float) -> None:
        self._answer_s = answer_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.is_lost = False
        self.lost = asyncio.Event()
        self._reader = hiredis.Reader(replyError=BaseParser.parse_error)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[_Waiting] = deque()

    async def ask(self, requests: bytes, count: int) -> list[Any]:
        if self.is_lost or self._transport is None:
            raise ConnectionResetError("the connection was closed")
        at_s = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(at_s + self._answer_s, self._look)
        waiting = _Waiting(count, at_s)
        self._waiting.append(waiting)  # and stays, whoever is cancelled: its answers come
        self._transport.write(requests)
        return await waiting.done

    def _look(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        due_s = self._waiting[0].at_s + self._answer_s
        if self._loop.time() < due_s:
            self._timer = self._loop.call_at(due_s, self._look)
            return
        self._fail(TimeoutError())
        self.abort()

    def _fail(self, exc: Exception) -> None:
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            if not one.done.done():
                one.done.set_exception(exc)

    def abort(self) -> None:
        self.is_lost = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports are not instances of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.lost.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fail(exc or ConnectionResetError("closed by Redis"))

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not False:
                self._take(answer)
        except (hiredis.ProtocolError, IndexError):  # not RESP, or an answer that nobody asked for
            self.abort()

    def _take(self, answer: Any) -> None:
        waiting = self._waiting[0]
        waiting.answers.append(answer)
        if len(waiting.answers) == waiting.count:
            self._waiting.popleft()
            if not waiting.done.done():
                waiting.done.set_result(waiting.answers)
