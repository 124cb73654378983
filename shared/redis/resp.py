"""RESP2 on sockets of our own: connections, packed requests, and `AutoPipeline`.

redis-py serves every rare command. Its general code costs more than the work where a process makes
thousands of small calls a second, and every token is such a call. So the write path of workers and
nodes packs its own requests, and a node's live connection (api/hub/live_connection.py) reads its
own messages. This module knows no script, no key and no generation.
Source: redis.io/docs/reference/protocol-spec (RESP2).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any, cast

import hiredis
from redis._parsers import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from shared.config.redis_url import RedisUrl
from shared.errors import Unavailable
from shared.redis.address import RedisAddress, Socket
from shared.redis.client import REDIS_CONNECT_S, Command, is_read_only
from shared.redis.pipeline import Call
from shared.redis.wire import encode, encode_words


def as_bytes(word: bytes | bytearray | str | int) -> bytes:
    """Return a word as Redis receives it: numbers in decimal, text in UTF-8."""
    if type(word) is bytes:
        return word
    if isinstance(word, bytearray):
        return bytes(word)
    return b"%d" % word if type(word) is int else str(word).encode()


def encode_call(digest: str, call: Call) -> bytes:
    """Return one EVALSHA request. Runs for every token: hence one pass without helpers."""
    keys, args = call
    parts = [b"*%d\r\n" % (3 + len(keys) + len(args)), _encode_head(digest, tuple(keys))]
    for word in args:
        if type(word) is not bytes:
            word = as_bytes(word)
        parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(parts)


@lru_cache(maxsize=4_096)
def _encode_head(digest: str, keys: tuple[str, ...]) -> bytes:
    """Return the first words of an EVALSHA, which repeat in every append of a generation."""
    return encode_words([b"EVALSHA", digest.encode(), b"%d" % len(keys), *map(str.encode, keys)])


class NeverSent(Unavailable):
    """There was no connection, so that nothing of the exchange has run."""


class AutoPipeline:
    """A `Pipeline` (shared/redis/pipeline.py) that packs the calls of all tasks onto one socket.

    Each exchange is one write. Several exchanges may be in flight; replies come in the order of
    the calls. If one exchange gets no reply in time, all exchanges in flight fail and the
    connection is closed: on one socket, every later reply waits behind the missing one. The next
    exchange opens a new connection.

    Args:
        answer_s: the longest time until the last reply of one exchange, s.

    Attributes:
        losses: how often an open connection was lost, or dropped because the master changed.
    """

    def __init__(self, url: str | RedisUrl, *, answer_s: float) -> None:
        self._url = url
        self.losses = 0
        self._answer_s = answer_s
        self._connecting = asyncio.Lock()
        self._is_closed = False
        self._connection: _Connection | None = None

    @cached_property
    def _address(self) -> RedisAddress:
        return RedisAddress(self._url)

    async def evaluate(self, calls: Sequence[tuple[str, Call]]) -> list[Any]:
        """Run scripts. Raises Unavailable as `Pipeline.evaluate`."""
        return await self.exchange(b"".join([encode_call(*call) for call in calls]), len(calls))

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands. Raises Unavailable as `Pipeline.run`."""
        requests = b"".join([encode(map(as_bytes, command)) for command in commands])
        return await self.exchange(requests, len(commands))

    async def exchange(self, requests: bytes, count: int) -> list[Any]:
        """Send encoded requests in one write, and return their `count` replies.

        Raises:
            Unavailable: a reply did not come in time; each request may have run.
        """
        try:
            connection = self._connection
            if connection is None or connection.is_lost:
                connection = await self._connect_in_time()
            replies = await connection.exchange(requests, count)
        except TimeoutError as exc:
            self._drop_connection()
            raise Unavailable("Redis cannot be reached: no answer in time") from exc
        except (OSError, hiredis.HiredisError) as exc:
            raise Unavailable(f"Redis cannot be reached: {exc}") from exc
        for reply in replies:
            if isinstance(reply, RedisError):
                self._check_refusal(reply)
        return replies

    def _check_refusal(self, reply: RedisError) -> None:
        """Raise Unavailable if the server takes no commands now; drop a demoted master."""
        if is_read_only(reply):
            self._address.distrust()
            self._drop_connection()
        if isinstance(reply, RedisConnectionError):  # LOADING, or a failed authentication
            raise Unavailable(f"Redis cannot be reached: {reply}") from reply

    async def _connect_in_time(self) -> _Connection:
        try:
            async with asyncio.timeout(self._answer_s):
                return await self._connect()
        except (OSError, hiredis.HiredisError) as exc:  # TimeoutError is an OSError
            reason = str(exc) or "no answer in time"
            raise NeverSent(f"Redis cannot be reached: {reason}") from exc

    async def _connect(self) -> _Connection:
        async with self._connecting:
            if self._connection is not None and not self._connection.is_lost:
                return self._connection
            if self._is_closed:
                raise ConnectionAbortedError("closed")
            async with asyncio.timeout(REDIS_CONNECT_S):
                address = self._address
                connection = await address.open(self._new_connection)
                try:
                    await _log_in(connection, address)
                    if self._is_closed:
                        raise ConnectionAbortedError("closed meanwhile")
                except BaseException:
                    connection.abort()
                    raise
            self._connection = connection
            return connection

    def _new_connection(self) -> _Connection:
        return _Connection(self._answer_s, self._note_loss)

    def _note_loss(self) -> None:
        self.losses += 1

    async def aclose(self) -> None:
        """Refuse further calls, and return when the connection is closed."""
        self._is_closed = True
        connection = self._connection
        self._drop_connection()
        if connection is not None:
            await connection.lost.wait()

    def drop(self) -> None:
        """Close the connection: calls in flight fail, and the next call opens a new one."""
        self._drop_connection()

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()


async def _log_in(connection: _Connection, address: RedisAddress) -> None:
    login = address.login
    requests = [encode(login)] if login else []
    if address.database:
        requests.append(encode([b"SELECT", b"%d" % address.database]))
    if address.has_role:
        requests.append(encode([b"ROLE"]))
    reply: Any = None
    for request in requests:
        (reply,) = await connection.exchange(request, 1)
        if isinstance(reply, Exception):
            raise OSError(str(reply))
    address.admit(connection, reply)


class _Exchange:
    """Requests in flight, sent at `sent_at_s` on the loop's clock."""

    __slots__ = ("count", "done", "replies", "sent_at_s")

    def __init__(self, count: int, sent_at_s: float) -> None:
        self.count = count
        self.sent_at_s = sent_at_s
        self.replies: list[Any] = []
        self.done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()


class _Connection(Socket):
    """One connection and its exchanges in flight, oldest first.

    One timer serves all exchanges: it fires when the oldest one can be overdue. A timeout for each
    exchange would cost as much as the exchange itself.
    """

    def __init__(self, answer_s: float, on_loss: Callable[[], None]) -> None:
        self._answer_s = answer_s
        self._on_loss = on_loss
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.is_lost = False
        self.lost = asyncio.Event()
        self._reader = hiredis.Reader(replyError=BaseParser.parse_error)
        self._transport: asyncio.Transport | None = None
        self._in_flight: deque[_Exchange] = deque()

    async def exchange(self, requests: bytes, count: int) -> list[Any]:
        if self.is_lost or self._transport is None:
            raise ConnectionResetError("the connection was closed")
        sent_at_s = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(sent_at_s + self._answer_s, self._check_overdue)
        exchange = _Exchange(count, sent_at_s)
        # A cancelled caller leaves its exchange here: the replies still come and must be matched.
        self._in_flight.append(exchange)
        self._transport.write(requests)
        return await exchange.done

    def _check_overdue(self) -> None:
        self._timer = None
        if not self._in_flight:
            return
        due_s = self._in_flight[0].sent_at_s + self._answer_s
        if self._loop.time() < due_s:
            self._timer = self._loop.call_at(due_s, self._check_overdue)
            return
        self._fail(TimeoutError())
        self.abort()

    def _fail(self, exc: Exception) -> None:
        exchanges, self._in_flight = self._in_flight, deque()
        for exchange in exchanges:
            if not exchange.done.done():
                exchange.done.set_exception(exc)

    def abort(self) -> None:
        self._note_lost()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports are not instances of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def _note_lost(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._on_loss()

    def connection_lost(self, exc: Exception | None) -> None:
        self._note_lost()
        self.lost.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fail(exc or ConnectionResetError("closed by Redis"))

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except (hiredis.ProtocolError, IndexError):  # not RESP, or a reply without a request
            self.abort()

    def _take(self, reply: Any) -> None:
        exchange = self._in_flight[0]
        exchange.replies.append(reply)
        if len(exchange.replies) == exchange.count:
            self._in_flight.popleft()
            if not exchange.done.done():
                exchange.done.set_result(exchange.replies)
