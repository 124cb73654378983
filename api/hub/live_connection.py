"""The one connection on which a node receives the live channels of all its generations.

SUBSCRIBE runs on a socket of its own. redis-py's pub/sub is not used, because it reconnects without
a notice and so loses messages unnoticed. Here each confirmation of a SUBSCRIBE is reported to the
listener, the first confirmation and each one after a reconnect. Each means: messages arrive from
now on, and events that were published before have to be read from the log.

    run(): connect ──▶ AUTH, PING ──PONG──▶ SUBSCRIBE all channels ──▶ listen ──▶ lost
              ▲                                                                    │
              └───────────── pause 0.05 s, doubled up to 5 s, with jitter ◀────────┘

A server of a cluster gets SSUBSCRIBE, SUNSUBSCRIBE and `smessage` instead (`PubSubCommands`), with
one channel in each command, because channels of two slots in one command are refused.

Invariant: `data_received` never waits. Knows channels and bytes, not generations.
Source: redis.io/docs/reference/protocol-spec (RESP2), redis.io/docs/interact/pubsub.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import hiredis

from shared.config.redis_url import RedisUrl
from shared.redis.address import RedisAddress, Socket
from shared.redis.wire import encode

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 3.0  # for the connection, AUTH and PING together
RECONNECT_PAUSES_S = (0.05, 5.0)  # first and longest pause before a reconnect
ROLES = (b"master", b"slave", b"sentinel")  # first words of the reply of ROLE
BATCH_CHANNELS = 512  # of one SUBSCRIBE or UNSUBSCRIBE command
UNSUBSCRIBE_DELAY_S = 0.02  # an UNSUBSCRIBE is not urgent: it may leave with other commands


class Listener(Protocol):
    """Receives the messages and the state of a live connection."""

    def subscribed(self, channel: bytes) -> None:
        """Redis has confirmed `channel`: messages arrive from now on. Also after a reconnect."""
        ...

    def message(self, channel: bytes, payload: bytes) -> None:
        """A message was published. Must be quick: the node's receiving waits for it."""
        ...

    def disconnected(self) -> None:
        """The connection is lost: messages are missed until the next `subscribed`."""
        ...


class PubSubCommands(NamedTuple):
    """The commands and reply types of plain or sharded pub/sub.

    Attributes:
        channels_max: of one command.
    """

    subscribe: bytes
    unsubscribe: bytes
    message: bytes
    channels_max: int

    @property
    def subscribed(self) -> bytes:
        """The first word of a confirmation."""
        return self.subscribe.lower()

    @property
    def unsubscribed(self) -> bytes:
        """The first word of the notice that a channel is subscribed no more."""
        return self.unsubscribe.lower()


PLAIN = PubSubCommands(b"SUBSCRIBE", b"UNSUBSCRIBE", b"message", BATCH_CHANNELS)
SHARDED = PubSubCommands(b"SSUBSCRIBE", b"SUNSUBSCRIBE", b"smessage", 1)


class LiveSource(Protocol):
    """The part of a live connection that the hub uses; tests replace it.

    Attributes:
        has_probe: the hub has to probe the connection; else it notices itself that it is deaf.
    """

    has_probe: bool

    @property
    def is_connected(self) -> bool: ...

    def subscribe(self, channel: bytes) -> None: ...

    def unsubscribe(self, channel: bytes) -> None: ...

    def drop(self) -> None:
        """Close the connection; `run` opens another one."""
        ...

    async def run(self) -> None:
        """Stay connected until cancelled."""
        ...


OpenConnection = Callable[[str, Listener], LiveSource]


class LiveConnection:
    """A subscribed connection that reconnects by itself.

    Args:
        url: a Redis URL, as shared/config/redis_url.py reads it.
        listener: receives messages and state, on the event loop.
        commands: `SHARDED` for a server of a cluster.
        pause_s_max: the longest pause before a reconnect, s.

    Attributes:
        reconnects: attempts to connect after the first one.
        bytes_received: total of all sockets, bytes.
    """

    has_probe = True

    def __init__(
        self,
        url: str | RedisUrl,
        listener: Listener,
        *,
        commands: PubSubCommands = PLAIN,
        pause_s_max: float = RECONNECT_PAUSES_S[1],
    ) -> None:
        self._address = RedisAddress(url)
        self._listener = listener
        self._pause_s_max = pause_s_max
        self.commands = commands
        self._channels: set[bytes] = set()
        self._protocol: _Protocol | None = None
        self.reconnects = 0
        self.bytes_received = 0

    @property
    def is_connected(self) -> bool:
        return self._protocol is not None

    def subscribe(self, channel: bytes) -> None:
        """Receive the messages of `channel`, also after reconnects, until `unsubscribe`."""
        self._channels.add(channel)
        if self._protocol is not None:
            self._protocol.command(self.commands.subscribe, channel)

    def unsubscribe(self, channel: bytes) -> None:
        """Receive no more messages of `channel`; takes effect within about 20 ms."""
        self._channels.discard(channel)
        if self._protocol is not None:
            self._protocol.command(self.commands.unsubscribe, channel)

    def drop(self) -> None:
        """Close the connection; `run` opens another one."""
        if self._protocol is not None:
            self._protocol.abort()

    async def run(self) -> None:
        """Connect, listen, and connect again after a pause with jitter, until cancelled."""
        pause_s = RECONNECT_PAUSES_S[0]
        while True:
            try:
                protocol = await self._open()
            except (OSError, TimeoutError, hiredis.HiredisError) as exc:
                logger.warning("live connection refused", extra={"reason": str(exc) or repr(exc)})
            else:
                pause_s = RECONNECT_PAUSES_S[0]
                await self._listen(protocol)
            await self._address.pause(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(2 * pause_s, self._pause_s_max)
            self.reconnects += 1

    async def _listen(self, protocol: _Protocol) -> None:
        self._protocol = protocol
        protocol.subscribe_many(sorted(self._channels))
        try:
            await protocol.lost.wait()
        finally:
            self._protocol = None
            protocol.abort()
            self._listener.disconnected()
        logger.warning("live connection lost", extra={"reason": protocol.reason})

    async def _open(self) -> _Protocol:
        """Connect and log in.

        Raises:
            OSError, TimeoutError, hiredis.HiredisError: there is no connection, it was refused, or
                it was not ready in `CONNECT_TIMEOUT_S`.
        """
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            protocol = await self._connect()
            try:
                await protocol.ready
            except BaseException:
                protocol.abort()
                raise
        return protocol

    async def _connect(self) -> _Protocol:
        login = self._address.login
        protocol = await self._address.open(lambda: _Protocol(self, self._listener))
        commands = [login] if login else []
        if self._address.has_role:
            commands.append([b"ROLE"])
        protocol.greet([*commands, [b"PING"]])  # PING is answered only after a valid login
        return protocol

    def note_unsubscribed(self, channel: bytes) -> None:
        """Take the notice that a channel is subscribed no more."""

    def takes_refusal(self, reason: str) -> bool:
        """Whether the connection goes on after an error reply; False: it is closed."""
        return False

    def ping(self) -> None:
        """Send a PING, whose reply counts in `bytes_received`."""
        if self._protocol is not None:
            self._protocol.greet([[b"PING"]])

    def admit(self, protocol: _Protocol, role: list[Any]) -> None:
        """Take the reply of ROLE. Raises OSError: the server is not the master."""
        self._address.admit(protocol, role)


class _Protocol(Socket):
    """One socket: sends commands and passes the replies on.

    Attributes:
        ready: done when Redis has answered PING; an exception if the socket was lost before.
        lost: set when the socket is closed.
        reason: why the socket was closed, for the log.
    """

    def __init__(self, owner: LiveConnection, listener: Listener) -> None:
        self._owner = owner
        self._listener = listener
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._commands: list[tuple[bytes, bytes]] = []
        self._is_flush_scheduled = False
        self._delayed_flush: asyncio.TimerHandle | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = asyncio.Event()
        self.reason = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast and no isinstance check: uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def greet(self, commands: list[list[bytes]]) -> None:
        """Send the first commands."""
        if self._transport is not None:
            self._transport.write(b"".join(map(encode, commands)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.reason = self.reason or str(exc or "closed")
        if self._delayed_flush is not None:
            self._delayed_flush.cancel()
        self._transport = None
        self.lost.set()
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(self.reason))
            self.ready.exception()  # marks it as retrieved, so that asyncio logs nothing

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # Commands

    def command(self, name: bytes, channel: bytes) -> None:
        """Send SUBSCRIBE or UNSUBSCRIBE in the next iteration of the loop, in order of the calls.

        Commands of one iteration leave together. An UNSUBSCRIBE alone waits for other commands, or
        `UNSUBSCRIBE_DELAY_S`.
        """
        loop = asyncio.get_running_loop()
        if name == self._owner.commands.unsubscribe:
            if self._delayed_flush is None:
                self._delayed_flush = loop.call_later(UNSUBSCRIBE_DELAY_S, self._flush)
        elif not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            loop.call_soon(self._flush)
        self._commands.append((name, channel))

    def subscribe_many(self, channels: list[bytes]) -> None:
        for channel in channels:
            self.command(self._owner.commands.subscribe, channel)

    def _flush(self) -> None:
        commands, self._commands = self._commands, []
        self._is_flush_scheduled = False
        if self._delayed_flush is not None:
            self._delayed_flush.cancel()
            self._delayed_flush = None
        if self._transport is None:
            return
        request: list[bytes] = []
        for name, channel in commands:
            if request and (request[0] != name or len(request) > self._owner.commands.channels_max):
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
            kind = self._owner.commands.message
            while (reply := gets()) is not False:
                if type(reply) is list and reply[0] == kind:
                    message(reply[1], reply[2])
                else:
                    self._take(reply)
        except hiredis.ProtocolError as exc:
            self._fail(f"not RESP: {exc}")

    def _take(self, reply: Any) -> None:
        if isinstance(reply, list) and reply and reply[0] in ROLES:
            try:
                self._owner.admit(self, reply)
            except OSError as exc:
                self._fail(str(exc))
        elif isinstance(reply, list) and len(reply) == 3:
            kind, channel, _ = reply
            if kind == self._owner.commands.subscribed:
                self._listener.subscribed(channel)
            elif kind == self._owner.commands.unsubscribed:
                self._owner.note_unsubscribed(channel)
        elif isinstance(reply, hiredis.ReplyError):
            if not (self.ready.done() and self._owner.takes_refusal(str(reply))):
                self._fail(str(reply))
        elif reply == b"PONG" and not self.reason and not self.ready.done():
            self.ready.set_result(None)

    def _fail(self, reason: str) -> None:
        self.reason = reason
        self.abort()
