"""One connection to one sentinel: commands, notices, and the view of a service.

Knows the commands of a sentinel, and not which master is the right one (record.py).
Source: redis.io/docs/latest/operate/oss_and_stack/management/sentinel
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any

import hiredis

from shared.config.redis_hosts import HostPort
from shared.config.redis_url import Sentinels
from shared.redis.sentinel.record import View
from shared.redis.wire import encode

REPLY_BYTES_MAX = 1_048_576  # that a sentinel may send before a reply is complete
NOTICES = (b"+switch-master", b"+promoted-slave")
UNKNOWN = "No such master"  # the error of a sentinel that does not watch the service


class SentinelFault(OSError):
    """A sentinel cannot be used: it refused, or sent something unexpected.

    Attributes:
        is_misconfigured: the URL or the sentinel is wrong; waiting does not help.
    """

    def __init__(self, text: str, *, is_misconfigured: bool = False) -> None:
        super().__init__(text)
        self.is_misconfigured = is_misconfigured


class SentinelSession:
    """An open connection, logged in. `open_session` makes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._replies = hiredis.Reader()
        self._unanswered_bytes = 0

    def send(self, *words: bytes) -> None:
        """Send a command without waiting for its reply."""
        self._writer.write(encode(words))

    async def receive(self) -> Any:
        """Return the next reply or notice; error replies are returned, too.

        Raises:
            OSError: the connection was closed, or the bytes are not RESP.
        """
        try:
            while (reply := self._replies.gets()) is False:
                data = await self._reader.read(65_536)
                self._unanswered_bytes += len(data)
                if not data:
                    raise SentinelFault("the sentinel closed the connection")
                if self._unanswered_bytes > REPLY_BYTES_MAX:
                    raise SentinelFault(f"a reply has more than {REPLY_BYTES_MAX} bytes")
                self._replies.feed(data)
        except hiredis.ProtocolError as exc:
            raise SentinelFault("the server does not speak Redis's protocol") from exc
        self._unanswered_bytes = 0
        return reply

    async def call(self, *words: bytes) -> Any:
        """Send a command, and return its reply.

        Raises:
            SentinelFault: the sentinel refused it.
        """
        self.send(*words)
        return checked(await self.receive())


def checked(reply: Any) -> Any:
    """Return a reply that is no error.

    Raises:
        SentinelFault: it is an error.
    """
    if not isinstance(reply, hiredis.ReplyError):
        return reply
    text = str(reply)
    is_server = text.lower().startswith("err unknown command")
    if is_server:
        text = "this is a Redis server and no sentinel"
    raise SentinelFault(text, is_misconfigured=is_server or UNKNOWN in text)


@contextlib.asynccontextmanager
async def open_session(
    address: HostPort, sentinels: Sentinels, tls: ssl.SSLContext | None
) -> AsyncIterator[SentinelSession]:
    """Connect and log in; close the connection at the end.

    Raises:
        OSError: there is no connection, the login was refused, or its file cannot be read.
    """
    login = sentinels.login.words()
    reader, writer = await asyncio.open_connection(*address, ssl=tls)
    try:
        session = SentinelSession(reader, writer)
        if login:
            await session.call(*login)
        yield session
    finally:
        writer.transport.abort()


async def read_view(session: SentinelSession, address: HostPort, service: str) -> View:
    """Ask a sentinel for its view of a service.

    The epoch comes from SENTINEL MASTER. That command still names the old master while a promoted
    replica waits for the others, so the address comes from the second command. Epoch first: an old
    epoch with a new address is harmless, a new epoch with an old address is not.

    Raises:
        SentinelFault: it does not watch the service, or the reply is malformed.
    """
    name = service.encode()
    session.send(b"SENTINEL", b"MASTER", name)
    session.send(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name)
    about, master = checked(await session.receive()), checked(await session.receive())
    if master is None:
        raise SentinelFault(UNKNOWN, is_misconfigured=True)
    try:
        fields = dict(zip(map(bytes.decode, about[::2]), about[1::2], strict=True))
        return View(
            sentinel=address,
            master=(master[0].decode(), int(master[1])),
            epoch=int(fields["config-epoch"]),
            replicas=int(fields["num-slaves"]),
            others=int(fields["num-other-sentinels"]),
            quorum=int(fields["quorum"]),
            down_after_ms=int(fields["down-after-milliseconds"]),
            failover_timeout_ms=int(fields["failover-timeout"]),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as exc:
        raise SentinelFault("the sentinel sent a reply of another form") from exc


def left_master(notice: Sequence[Any], service: str) -> HostPort | None:
    """Return the master that a notice names as left; None: it is about another service.

    [message, +switch-master,  "service 10.0.0.1 6379 10.0.0.2 6379"]
    [message, +promoted-slave, "slave 10.0.0.2:6379 10.0.0.2 6379 @ service 10.0.0.1 6379"]
    """
    words = notice[2].decode(errors="replace").split(" ")
    if notice[1] == b"+promoted-slave":
        words = words[words.index("@") + 1 :] if "@" in words else []
    if len(words) < 3 or words[0] != service or not words[2].isdigit():
        return None
    return words[1], int(words[2])
