"""The redis-py client: its options, and `Unavailable` for its errors.

The client speaks RESP2, because redis-py 8 would choose RESP3, whose replies have other shapes.
Replies are bytes. Invariant: the client repeats no command, because only the caller knows which
command is safe to repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from redis import exceptions
from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.client import Pipeline as RedisPipeline
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from shared.config.redis_login import LoginFileError, RedisLogin
from shared.config.redis_url import RedisUrl
from shared.errors import Unavailable
from shared.redis.sentinel.follower import Follower, MasterLost, follower_of
from shared.redis.wire import tls_context

Client = Redis
Command = Sequence[bytes | str | int]

# Error replies that mean "not now". redis-py removes the first word where it has a type for it.
REFUSALS = (
    exceptions.ConnectionError,  # and BusyLoadingError, AuthenticationError
    exceptions.TimeoutError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,  # the master became a replica
    exceptions.NoPermissionError,  # the rights were changed; `check_server` asked at start
    exceptions.ClusterDownError,  # and MasterDownError
    exceptions.TryAgainError,
    exceptions.AskError,  # and MovedError
)
REFUSING_WORDS = (
    "OOM",
    "LOADING",
    "READONLY",
    "UNBLOCKED",  # a blocking read on a master that became a replica
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "MOVED",  # a slot that has moved again and again
    "ASK ",
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
    "NOPERM",
    "ACL failure in script",  # from inside a script, Redis 7
    "The user executing the script",  # and Redis 6.2
)
REDIS_CONNECT_S = 1.5  # TCP, TLS and login; part of the 5 s in which a node promises an answer
REDIS_ANSWER_S = (
    2.5  # for one reply; with more, a node could not refuse a prompt within the same 5 s
)


def open_pool(url: RedisUrl, *, answer_s: float = REDIS_ANSWER_S) -> ConnectionPool:
    """Return a pool of redis-py's connections, which pass on every cancellation.

    Raises:
        ConfigurationError: a file or a name for TLS cannot be used.
    """
    check_files(url)
    kind: Any = SSLConnection if url.is_tls else Connection
    address: dict[str, Any] = {"host": url.host, "port": url.port}
    if url.path:
        kind, address = UnixDomainSocketConnection, {"path": url.path}
    pool: ConnectionPool = ConnectionPool(
        connection_class=_following(kind, url) if url.sentinels is not None else kind,
        **address,
        db=url.database,
        credential_provider=_Credentials(url.login) if any(url.login) else None,
        **url.options,
        protocol=2,
        decode_responses=False,
        lib_name=None,  # else redis-py sends CLIENT SETINFO, which fills the ACL log of a user
        lib_version=None,  # with restricted rights
        socket_connect_timeout=REDIS_CONNECT_S,
        socket_timeout=answer_s,
        retry=Retry(NoBackoff(), 0),  # the caller decides what to repeat
    )
    make_cancellable(pool)
    return pool


class OneServerClient(Redis):
    """redis-py's client of one server, whose pipelines raise each error as the server sent it."""

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> RedisPipeline:
        """Return a pipeline, or a transaction."""
        return PlainPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class PlainPipeline(RedisPipeline):
    """redis-py's pipeline, whose errors keep their text.

    redis-py writes the whole command before the text. So the error code is no longer at the
    beginning of the message, and the message holds the command, including a prompt.
    """

    def annotate_exception(
        self, exception: Exception, number: int, command: Iterable[object]
    ) -> None:
        """Add only a note: the number of the command, and its name."""
        name = str(next(iter(command), ""))
        exception.add_note(f"command {number} of a pipeline: {name}")


def check_files(url: RedisUrl) -> None:
    """Check what the URL names for TLS and logins: redis-py would try it at each command.

    Raises:
        ConfigurationError: a file or a name cannot be used.
    """
    tls_context(url)
    url.login.check()
    if url.sentinels is not None:
        url.sentinels.login.check()


def _following(connection_class: Any, url: RedisUrl) -> Any:
    """Return a class of connections to the master that the sentinels name."""

    class Following(connection_class):  # type: ignore[misc]
        """redis-py's connection, with the rules of `RedisAddress` (shared/redis/address.py)."""

        sentinel_url = url

        @property
        def _follower(self) -> Follower:
            return follower_of(url)

        async def _connect(self) -> None:
            self.host, self.port = await self._follower.find()
            with self._follower.attempt() as attempt:
                async with attempt:
                    await super()._connect()

        async def on_connect(self) -> None:
            try:
                self._follower.track(self, (self.host, self.port))
                await super().on_connect()
                await self.send_command("ROLE", check_health=False)
                self._follower.admit(self, await self.read_response())
            except MasterLost as exc:
                raise exceptions.ConnectionError(str(exc)) from exc

        async def read_response(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return await super().read_response(*args, **kwargs)
            except exceptions.ResponseError as exc:
                if is_read_only(exc):
                    self._follower.distrust()
                    self.abort()
                raise

        def abort(self) -> None:
            if self._writer is not None:
                self._writer.transport.abort()

    return Following


def client_follower(redis: Client) -> Follower | None:
    """Return what follows the master of this client; None: its URL names the server itself."""
    url = getattr(redis.connection_pool.connection_class, "sentinel_url", None)
    return None if url is None else follower_of(url)


class _Credentials(CredentialProvider):
    """Gives redis-py the login for each new connection."""

    def __init__(self, login: RedisLogin) -> None:
        self._login = login

    async def get_credentials_async(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return what follows AUTH; empty: send no AUTH."""
        try:
            words = self._login.words()
        except LoginFileError as exc:
            raise exceptions.ConnectionError(str(exc)) from exc
        return tuple(word.decode() for word in words[1:])


def make_cancellable(pool: ConnectionPool) -> None:
    """Make the connections of this pool pass on every cancellation.

    redis-py sends under `asyncio.wait_for`. Up to Python 3.11, `wait_for` loses a cancellation that
    comes at the moment when the sending completes: a cancelled loop runs on, and its process never
    stops.
    """
    connection_class: Any = pool.connection_class
    pool.connection_class = _cancellable(connection_class)


@cache
def _cancellable(connection_class: Any) -> Any:
    class Cancellable(connection_class):  # type: ignore[misc]
        """redis-py's connection, which waits under `asyncio.timeout` while it sends."""

        async def send_packed_command(
            self, command: bytes | str | Iterable[bytes], check_health: bool = True
        ) -> None:
            if not self.is_connected:
                await self.connect()
            elif check_health:
                await self.check_health()
            if isinstance(command, str):
                command = command.encode()
            try:
                async with asyncio.timeout(self.socket_timeout):
                    self._writer.writelines([command] if isinstance(command, bytes) else command)
                    await self._writer.drain()
            except BaseException as exc:
                # The command may be sent in part: no other command may follow on this connection.
                await self.disconnect(nowait=True)
                if isinstance(exc, TimeoutError):
                    raise exceptions.TimeoutError("Timeout writing to socket") from None
                if isinstance(exc, OSError) or _is_closed(exc):
                    raise exceptions.ConnectionError(f"Error while writing: {exc}") from exc
                raise

    return Cancellable


def _is_closed(exc: BaseException) -> bool:
    """Whether this is uvloop's error for a connection that the peer has just closed."""
    return isinstance(exc, RuntimeError) and "closed" in str(exc)


async def clock_ms(redis: Client) -> int:
    """Return Redis's clock, ms since 1970.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    with translated():
        seconds, micros = await redis.time()
    return int(seconds * 1000 + micros // 1000)


@contextmanager
def translated() -> Iterator[None]:
    """Turn redis-py's errors for an absent, loading or full Redis into `Unavailable`."""
    try:
        yield
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as exc:
        raise Unavailable(f"Redis cannot be reached: {exc}") from exc
    except exceptions.ResponseError as exc:
        if is_refusal(exc):
            raise Unavailable(f"Redis refuses: {exc}") from exc
        raise


def is_read_only(exc: Any) -> bool:
    """Whether an error reply means that the server is a replica now, also from inside a script."""
    return isinstance(exc, exceptions.ReadOnlyError) or str(exc).startswith(
        ("READONLY", "UNBLOCKED")
    )


def is_refusal(exc: Any) -> bool:
    """Whether an error reply means "not now": the same call may succeed later."""
    if isinstance(exc, REFUSALS):
        return True
    # An error from inside a script keeps its text, but not always its type.
    return str(exc).startswith(REFUSING_WORDS) or "used memory > 'maxmemory'" in str(exc)


def is_partial(refusal: Exception, replies: Iterable[Any]) -> bool:
    """Whether a server of a cluster is away, and others have answered the calls beside this one.

    Args:
        refusal: one of the replies.
        replies: of calls on several servers.
    """
    return is_refusal(refusal) and not all(isinstance(reply, Exception) for reply in replies)


def raise_errors(replies: Sequence[Any]) -> None:
    """Raise Unavailable if there is any error among the replies of a `Pipeline`."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise Unavailable(f"Redis refuses: {reply}") from reply


def raise_unless_partial(replies: Sequence[Any]) -> None:
    """Raise Unavailable if an error among the replies is not `is_partial`."""
    for reply in replies:
        if isinstance(reply, Exception) and not is_partial(reply, replies):
            raise Unavailable(f"Redis refuses: {reply}") from reply
