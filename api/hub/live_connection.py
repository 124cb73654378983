"""The one live connection of a node: SUBSCRIBE on a socket of our own, parsed as fast as it comes.

Not redis-py's pub/sub: that reconnects in silence and loses what was sent meanwhile. Here every
confirmation of a SUBSCRIBE is reported, the first one and each one after a reconnect, and means the
same to whoever hears it: from now on frames arrive, what came before must be read from the log.
Invariant: `data_received` never waits for anybody. Knows channels and bytes, not generations.
Source: redis.io/docs/reference/protocol-spec (RESP2), redis.io/docs/interact/pubsub.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, Protocol, cast

import hiredis

from shared.redis.resp import RedisAddress, encode

logger = logging.getLogger(__name__)

CONNECT_S = 3.0
BACKOFF_S = (0.05, 5.0)  # first and longest pause before a reconnect
BATCH_CHANNELS = 512  # of one SUBSCRIBE
UNSUBSCRIBE_S = 0.02  # nobody waits for it


class Listener(Protocol):
    """Who is told."""

    def subscribed(self, channel: bytes) -> None:
        """Redis has confirmed: what is published from now on arrives. Also after a reconnect."""
        ...

    def message(self, channel: bytes, payload: bytes) -> None: ...

    def disconnected(self) -> None: ...


class Live(Protocol):
    """What the hub needs of a live connection; tests bring their own."""

    @property
    def is_connected(self) -> bool: ...

    def subscribe(self, channel: bytes) -> None: ...

    def unsubscribe(self, channel: bytes) -> None: ...

    def drop(self) -> None:
        """Give the connection up; `run` makes another."""
        ...

    async def run(self) -> None:
        """Stay connected until cancelled."""
        ...


OpenConnection = Callable[[str, Listener], Live]


class LiveConnection:
    """One subscribed connection that comes back by itself.

    Args:
        url: as redis-py takes it: redis://, rediss:// or unix://, with user and password.
    """

    def __init__(self, url: str, listener: Listener) -> None:
        self._target = RedisAddress(url)
        self._listener = listener
        self._wanted: set[bytes] = set()
        self._protocol: _Protocol | None = None
        self.reconnects = 0
        self.bytes_received = 0

    @property
    def is_connected(self) -> bool:
        return self._protocol is not None

    def subscribe(self, channel: bytes) -> None:
        """Want messages of `channel`; survives reconnects."""
        self._wanted.add(channel)
        if self._protocol is not None:
            self._protocol.command(b"SUBSCRIBE", channel)

    def unsubscribe(self, channel: bytes) -> None:
        self._wanted.discard(channel)
        if self._protocol is not None:
            self._protocol.command(b"UNSUBSCRIBE", channel)

    def drop(self) -> None:
        if self._protocol is not None:
            self._protocol.abort()

    async def run(self) -> None:
        """Connect, listen, and connect again after a pause with jitter, until cancelled."""
        pause_s = BACKOFF_S[0]
        while True:
            try:
                protocol = await self._open()
            except (OSError, TimeoutError, hiredis.HiredisError) as exc:
                logger.warning("live connection refused", extra={"reason": str(exc) or repr(exc)})
            else:
                pause_s = BACKOFF_S[0]
                await self._listen(protocol)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(2 * pause_s, BACKOFF_S[1])
            self.reconnects += 1

    async def _listen(self, protocol: _Protocol) -> None:
        self._protocol = protocol
        protocol.subscribe_many(sorted(self._wanted))
        try:
            await protocol.lost.wait()
        finally:
            self._protocol = None
            protocol.abort()
            self._listener.disconnected()
        logger.warning("live connection lost", extra={"reason": protocol.reason})

    async def _open(self) -> _Protocol:
        """Connect and log in."""
        async with asyncio.timeout(CONNECT_S):
            protocol = await self._connect()
            try:
                await protocol.ready
            except BaseException:
                protocol.abort()
                raise
        return protocol

    async def _connect(self) -> _Protocol:
        login = self._target.login
        return await self._target.open(lambda: _Protocol(self, self._listener, login))


class _Protocol(asyncio.Protocol):
    """One connection: sends commands, hands on what comes."""

    def __init__(self, owner: LiveConnection, listener: Listener, login: list[bytes]) -> None:
        self._owner = owner
        self._listener = listener
        self._login = login
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._commands: list[tuple[bytes, bytes]] = []
        self._is_flush_near = False
        self._flushing: asyncio.TimerHandle | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = asyncio.Event()
        self.reason = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports are not instances of asyncio's.
        transport = cast(asyncio.Transport, transport)
        self._transport = transport
        if self._login:
            transport.write(encode(self._login))
        transport.write(encode([b"PING"]))  # answered only where we may ask

    def connection_lost(self, exc: Exception | None) -> None:
        self.reason = self.reason or str(exc or "closed")
        if self._flushing is not None:
            self._flushing.cancel()
        self._transport = None
        self.lost.set()
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(self.reason))
            self.ready.exception()  # seen, also where nobody waits any more

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # Commands

    def command(self, name: bytes, channel: bytes) -> None:
        """Send soon: what is asked for within one tick leaves together, in order.

        To hear no more of a channel is not urgent: that leaves with what is, or after a moment.
        """
        loop = asyncio.get_running_loop()
        if name == b"UNSUBSCRIBE":
            if self._flushing is None:
                self._flushing = loop.call_later(UNSUBSCRIBE_S, self._flush)
        elif not self._is_flush_near:
            self._is_flush_near = True
            loop.call_soon(self._flush)
        self._commands.append((name, channel))

    def subscribe_many(self, channels: list[bytes]) -> None:
        for channel in channels:
            self.command(b"SUBSCRIBE", channel)

    def _flush(self) -> None:
        commands, self._commands = self._commands, []
        self._is_flush_near = False
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._transport is None:
            return
        request: list[bytes] = []
        for name, channel in commands:
            if request and (request[0] != name or len(request) > BATCH_CHANNELS):
                self._transport.write(encode(request))
                request = []
            request = request or [name]
            request.append(channel)
        if request:
            self._transport.write(encode(request))

    # Replies

    def data_received(self, data: bytes) -> None:
        self._owner.bytes_received += len(data)
        try:
            self._reader.feed(data)
            gets, message = self._reader.gets, self._listener.message
            while (reply := gets()) is not False:
                if type(reply) is list and reply[0] == b"message":
                    message(reply[1], reply[2])
                else:
                    self._take(reply)
        except hiredis.ProtocolError as exc:
            self._fail(f"not RESP: {exc}")

    def _take(self, reply: Any) -> None:
        if isinstance(reply, list) and len(reply) == 3:
            kind, channel, _ = reply
            if kind == b"subscribe":
                self._listener.subscribed(channel)
        elif isinstance(reply, hiredis.ReplyError):
            self._fail(str(reply))
        elif reply == b"PONG" and not self.ready.done():
            self.ready.set_result(None)

    def _fail(self, reason: str) -> None:
        self.reason = reason
        self.abort()
