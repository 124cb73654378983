"""Opens sockets of our own to the server of a Redis URL, which Sentinel may move.

redis-py's connections have the same rules in shared/redis/client.py. Invariant: with Sentinel, a
connection carries commands only after its server has answered ROLE with `master`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from shared.config.redis_url import RedisUrl, read_redis_url
from shared.redis.sentinel.follower import Follower, follower_of
from shared.redis.wire import tls_context


class Socket(asyncio.Protocol):
    """A protocol that `RedisAddress.open` connects."""

    def abort(self) -> None:
        """Close the connection without waiting."""
        raise NotImplementedError


S = TypeVar("S", bound=Socket)


class RedisAddress:
    """The server in a Redis URL, or the master that its sentinels name.

    Args:
        url: as text, or read already.
    """

    def __init__(self, url: str | RedisUrl) -> None:
        self._url = read_redis_url(url, "TAILRACE_REDIS_URL") if isinstance(url, str) else url
        self._tls = tls_context(self._url)

    @property
    def _follower(self) -> Follower | None:
        return follower_of(self._url) if self._url.sentinels is not None else None

    @property
    def login(self) -> list[bytes]:
        """The words of the AUTH command to send first; empty: the URL has no user or password.

        Raises:
            OSError: a file with the user or the password cannot be used now.
        """
        return self._url.login.words()

    @property
    def database(self) -> int:
        return self._url.database

    @property
    def has_role(self) -> bool:
        """Whether ROLE has to be sent on each new connection, and its reply given to `admit`."""
        return self._url.sentinels is not None

    async def open(self, new_socket: Callable[[], S]) -> S:
        """Connect, and return the protocol of the new connection.

        Raises:
            OSError: no server listens there, or TLS failed, or the sentinels name no master.
            TimeoutError: the master changed while the connection was made.
        """
        loop, url, follower = asyncio.get_running_loop(), self._url, self._follower
        if url.path:
            _, socket = await loop.create_unix_connection(new_socket, url.path)
        elif follower is None:
            connecting = loop.create_connection(new_socket, url.host, url.port, ssl=self._tls)
            _, socket = await connecting
        else:
            host, port = await follower.find()
            with follower.attempt() as attempt:
                async with attempt:
                    connecting = loop.create_connection(new_socket, host, port, ssl=self._tls)
                    _, socket = await connecting
            try:
                follower.track(socket, (host, port))
            except OSError:
                socket.abort()
                raise
        return socket

    def admit(self, socket: Socket, role: Any) -> None:
        """Check the reply of ROLE on a new connection.

        Raises:
            OSError: the server is not the master; the connection must be closed.
        """
        if (follower := self._follower) is not None:
            follower.admit(socket, role)

    def distrust(self) -> None:
        """Ask the sentinels again before the next connection."""
        if (follower := self._follower) is not None:
            follower.distrust()

    async def pause(self, pause_s: float) -> None:
        """Return after `pause_s`; with Sentinel, also when the master has changed."""
        if (follower := self._follower) is not None:
            await follower.pause(pause_s)
        else:
            await asyncio.sleep(pause_s)
