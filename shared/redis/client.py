"""The connection to Redis, with every default that matters said aloud.

RESP2 on purpose: redis-py 8 would choose RESP3, whose replies have other shapes. Answers are bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from shared.config.settings import Settings
from shared.errors import ConfigurationError, Unavailable
from shared.redis.resp import AutoPipeline

Client = Redis
Command = Sequence[bytes | str | int]

# redis-py takes the first word off the errors that it has a type for.
REFUSALS = (
    exceptions.ConnectionError,  # and BusyLoadingError, AuthenticationError
    exceptions.TimeoutError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,  # a master that was demoted
)
REFUSING_WORDS = (
    "OOM",
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
)
CONNECT_S = 1.5
POLICY = "noeviction"
OLDEST = (6, 2)
ANSWER_S = 2.5  # above this an accepted prompt could not be refused within the promised 5 s


def connect(settings: Settings, *, answer_s: float = ANSWER_S) -> Client:
    """Return a client; it connects when first used.

    Args:
        answer_s: how long one answer may take, s.

    Raises:
        ConfigurationError: no URL, or one that redis-py cannot read.
    """
    redis_url = settings.named_redis_url()
    try:
        client: Client = Redis.from_url(
            redis_url,
            protocol=2,
            decode_responses=False,
            socket_connect_timeout=CONNECT_S,
            socket_timeout=answer_s,
            retry=Retry(NoBackoff(), 0),  # who calls decides what may be repeated
        )
    except ValueError as exc:
        raise ConfigurationError(f"TAILRACE_REDIS_URL: {exc}") from exc
    make_cancellable(client.connection_pool)
    return client


def make_cancellable(pool: ConnectionPool) -> None:
    """Let every cancellation through that meets a connection of this pool.

    redis-py sends under `asyncio.wait_for`, which up to Python 3.11 loses a cancellation that comes
    just when the sending is done: a loop that was to end runs on, and its process never stops.
    """
    connection_class: Any = pool.connection_class
    pool.connection_class = _cancellable(connection_class)


@cache
def _cancellable(connection_class: Any) -> Any:
    class Cancellable(connection_class):  # type: ignore[misc]
        """As redis-py's, but for how it waits while it sends."""

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
                # A command of which a part was sent leaves the connection useless.
                await self.disconnect(nowait=True)
                if isinstance(exc, TimeoutError):
                    raise exceptions.TimeoutError("Timeout writing to socket") from None
                if isinstance(exc, OSError) or _is_closed(exc):
                    raise exceptions.ConnectionError(f"Error while writing: {exc}") from exc
                raise

    return Cancellable


def _is_closed(exc: BaseException) -> bool:
    """uvloop's word for a connection that the other side closed a moment ago."""
    return isinstance(exc, RuntimeError) and "closed" in str(exc)


async def check_server(redis: Client) -> None:
    """Refuse a server that could take a generation's keys apart, or that is too old.

    Raises:
        ConfigurationError: it evicts, or is older than 6.2. A server that does not say is let pass.
        Unavailable: it does not answer.
    """
    with translated():
        info: dict[str, Any] = await redis.info("everything")
    policy = str(info.get("maxmemory_policy", POLICY))
    if policy != POLICY:
        raise ConfigurationError(
            f"this Redis has maxmemory-policy {policy}: set {POLICY}, or answers lose their parts"
        )
    version = str(info.get("redis_version", "7.0"))
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise ConfigurationError(f"this Redis is version {version}: 6.2 or newer is needed")


async def clock_ms(redis: Client) -> int:
    """Return Redis's clock, ms since 1970.

    Raises:
        Unavailable.
    """
    with translated():
        seconds, micros = await redis.time()
    return int(seconds * 1000 + micros // 1000)


async def run_commands(
    redis: Client, line: AutoPipeline | None, commands: Sequence[Command]
) -> list[Any]:
    """Send commands in one write, on `line` where there is one; answers in order.

    Error replies are among the answers.

    Raises:
        Unavailable: no answer; each command may have happened.
    """
    if line is not None:
        return await line.run(commands)
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(await pipeline.execute(raise_on_error=False))


@contextmanager
def translated() -> Iterator[None]:
    """Turn what redis-py raises when Redis is away, loading or full into `Unavailable`."""
    try:
        yield
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as exc:
        raise Unavailable(f"Redis cannot be reached: {exc}") from exc
    except exceptions.ResponseError as exc:
        if is_refusal(exc):
            raise Unavailable(f"Redis refuses: {exc}") from exc
        raise


def is_refusal(exc: Any) -> bool:
    """Whether an error reply means "not now" and not "wrong"."""
    if isinstance(exc, REFUSALS):
        return True
    # Inside a script, an error keeps its words but not always its type.
    return str(exc).startswith(REFUSING_WORDS) or "used memory > 'maxmemory'" in str(exc)
