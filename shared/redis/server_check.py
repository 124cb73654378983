"""The checks of a role on its Redis at start: version, policy, mode, rights, a place for arq.

Invariant: nothing is changed. A right is asked for by queueing a command in a transaction that is
never executed, because Redis checks rights at the moment of queueing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from redis import exceptions
from redis.asyncio import Redis, SSLConnection

from shared.config.redis_url import RedisUrl, read_redis_url
from shared.config.settings import Settings
from shared.errors import ConfigurationError, Unavailable
from shared.redis.client import Client, client_follower, is_refusal, open_pool, translated
from shared.redis.cluster.client import ClusterClient, cluster_of
from shared.redis.cluster.topology import NoCluster
from shared.text.addresses import format_authority

log = logging.getLogger(__name__)

EVICTION_POLICY = "noeviction"
SERVER_VERSION_MIN = (6, 2)
KEY_PATTERNS = ("tr:*", "arq:*")
CHANNEL_PATTERN = "tr:*"

# Every command that a role, a script of ours or arq sends, in a form that Redis would accept.
# docs/operations.md, "A user with restricted rights", has the same list as a rule.
TRANSACTION = ("WATCH tr:probe", "MULTI", "EXEC", "UNWATCH")
COMMANDS = (
    "BLPOP tr:probe 1", "DEL tr:probe", "EVAL return 1 tr:probe", "EVALSHA 0 1 tr:probe",
    "EXISTS tr:probe", "EXPIRE tr:probe 1", "GET tr:probe", "HDEL tr:probe f", "HEXISTS tr:probe f",
    "HGET tr:probe f", "HGETALL tr:probe", "HINCRBY tr:probe f 1", "HLEN tr:probe",
    "HMGET tr:probe f", "HSET tr:probe f v", "HSETNX tr:probe f v", "INCRBY tr:probe 1",
    "LPUSH tr:probe v", "LRANGE tr:probe 0 1", "LTRIM tr:probe 0 1", "PEXPIRE tr:probe 1",
    "PEXPIREAT tr:probe 1", "PING", "PSETEX arq:probe 1 v", "PTTL tr:probe", "PUBLISH tr:probe m",
    "RPUSH tr:probe v", "SADD tr:probe m", "SCAN 0", "SCARD tr:probe", "SCRIPT|LOAD return",
    "SET tr:probe v", "SETEX tr:probe 1 v", "SMEMBERS tr:probe", "SREM tr:probe m",
    "SUBSCRIBE tr:probe", "TIME", "UNSUBSCRIBE tr:probe", "XACK tr:probe g 0-1",
    "XADD tr:probe * f v", "XAUTOCLAIM tr:probe g c 1 0-0", "XCLAIM tr:probe g c 1 0-1",
    "XDEL tr:probe 0-1", "XGROUP|CREATE tr:probe g 0", "XGROUP|DELCONSUMER tr:probe g c",
    "XINFO|CONSUMERS tr:probe g", "XINFO|GROUPS tr:probe", "XLEN tr:probe",
    "XPENDING tr:probe g", "XRANGE tr:probe - +",
    "XREADGROUP GROUP g c STREAMS tr:probe >", "XREVRANGE tr:probe + -", "XTRIM tr:probe MAXLEN 1",
    "ZADD tr:probe 1 m",
    "ZCARD tr:probe", "ZINCRBY tr:probe 1 m", "ZPOPMIN tr:probe", "ZRANDMEMBER tr:probe",
    "ZRANGE tr:probe 0 1",
    "ZRANGEBYSCORE tr:probe 0 1", "ZRANK tr:probe m", "ZREM tr:probe m",
    "ZREMRANGEBYRANK tr:probe 0 0", "ZREMRANGEBYSCORE tr:probe 0 1", "ZREVRANGE tr:probe 0 1",
    "ZREVRANGEBYSCORE tr:probe 1 0",
    "ZREVRANK tr:probe m", "ZSCAN tr:probe 0", "ZSCORE tr:probe m",
)  # fmt: skip
# What is needed on a cluster beside the others; docs/operations.md, "Cluster", has the same list.
CLUSTER_COMMANDS = (
    "ASKING", "CLUSTER|INFO", "CLUSTER|SLOTS", "SPUBLISH tr:probe m", "SSUBSCRIBE tr:probe",
    "SUNSUBSCRIBE tr:probe",
)  # fmt: skip
# Without these a role works. It cannot check the server, all data is in database 0, and `doctor`
# cannot judge the pub/sub buffers.
OPTIONAL = ("INFO", "SELECT", "CONFIG|GET")

KEYS_OF_TWO_SLOTS = ("tr:probe", "arq:probe")
CLUSTER_ERRORS = ("CROSSSLOT", "CLUSTERDOWN", "MOVED")  # the first words of its refusals
CLUSTER_MODE = "this Redis runs in cluster mode: write {url}, with some more of its nodes"
NO_CLUSTER_MODE = (
    "TAILRACE_REDIS_URL names a cluster, and these servers run without cluster mode: write redis://"
)
NO_JOBS_URL = (
    "TAILRACE_JOBS_REDIS_URL is not set: arq cannot use the cluster of TAILRACE_REDIS_URL, so name "
    "a single server for the jobs role"
)
SENTINEL_MODE = (
    "this server is a sentinel: write redis+sentinel://host:port,host:port/service/0, "
    "with all sentinels and the name that they have for the master"
)
RULES = "docs/operations.md, Redis, has the rules of a user with all rights"


async def check_server(redis: Client) -> None:
    """Check the server of TAILRACE_REDIS_URL: database, rights, mode, version and eviction.

    Eviction removes single keys, so a generation would lose a part of its state. A server that does
    not report its policy or its version passes, with a warning if INFO is refused.

    Of a cluster each master that answers is checked.

    Raises:
        ConfigurationError: the server cannot be used; the message says what to change.
        Unavailable: Redis did not answer in time.
    """
    if (cluster := cluster_of(redis)) is not None:
        await _check_cluster(cluster)
        return
    await check_connection(redis)
    await _check_one(redis)


async def _check_cluster(cluster: ClusterClient) -> None:
    """Check each master that answers.

    Raises:
        ConfigurationError, Unavailable: as `check_server`.
    """
    try:
        masters = await cluster.masters()
    except NoCluster as exc:
        raise ConfigurationError(NO_CLUSTER_MODE) from exc
    away = []
    for url in masters:
        async with Redis.from_pool(open_pool(url)) as master:
            try:
                await _check_refusal(master)
                await _check_one(master, COMMANDS + CLUSTER_COMMANDS)
            except Unavailable as exc:
                log.warning("redis not checked", extra={"reason": str(exc)})
                away.append(exc)
    if away and len(away) == len(masters):
        raise away[0]


async def _check_one(redis: Client, commands: Sequence[str] = COMMANDS) -> None:
    """Check rights, version and eviction of one server. Raises as `check_server`."""
    with translated():
        try:
            info: dict[str, Any] = await redis.info("everything")
        except exceptions.ResponseError as exc:
            if not _refused("INFO", exc):
                raise
            log.warning("redis not checked", extra={"reason": f"INFO is refused: {exc}"})
            info = {}
    if missing := await missing_rights(redis, commands):
        raise ConfigurationError(f"{_lacks(missing)}: {RULES}")
    policy = str(info.get("maxmemory_policy", EVICTION_POLICY))
    if policy != EVICTION_POLICY:
        raise ConfigurationError(
            f"this Redis has maxmemory-policy {policy}: set {EVICTION_POLICY}, "
            "or answers lose their parts"
        )
    version = str(info.get("redis_version", "7.0"))
    if tuple(int(part) for part in version.split(".")[:2]) < SERVER_VERSION_MIN:
        raise ConfigurationError(f"this Redis is version {version}: 6.2 or newer is needed")


async def check_connection(redis: Client) -> None:
    """Check that the server accepts the database and the client's name, and is no cluster.

    Raises:
        ConfigurationError: it does not; the message says what to change.
        Unavailable: Redis did not answer in time.
    """
    await _check_sentinels(redis, "TAILRACE_REDIS_URL")
    await _check_refusal(redis)
    with translated():
        await check_mode(redis)


async def _check_refusal(redis: Client) -> None:
    with translated():
        if refusal := await _refusal_at_connecting(redis):
            what = "its database, client_name or ROLE"
            raise ConfigurationError(f"TAILRACE_REDIS_URL: the server refuses {what}: {refusal}")


async def _check_sentinels(redis: Client, variable: str) -> None:
    """Check that a sentinel of the URL knows the service. Do nothing if it names no sentinels.

    Raises:
        ConfigurationError: the ones that answer are no sentinels, or do not know the service.
        Unavailable: none answered in time.
    """
    follower = client_follower(redis)
    if follower is None:
        return
    views, faults = await follower.ask()
    if views:
        return
    for fault in faults:
        if fault.is_misconfigured:
            advice = f"check the hosts and the service {follower.sentinels.service}"
            raise ConfigurationError(f"{variable}: {fault}: {advice}")
    raise Unavailable("; ".join(["no sentinel answers", *map(str, faults)]))


async def check_mode(redis: Client) -> None:
    """Check that the server is no sentinel and not in cluster mode, by a command on two slots.

    A server in cluster mode runs no transaction on keys of different slots, which arq needs. With
    several nodes it would refuse scripts as well. INFO would tell, but a user may not have it.

    Raises:
        ConfigurationError: the server is a sentinel, or in cluster mode.
        redis.exceptions.RedisError: it did not answer.
    """
    try:
        await redis.exists(*KEYS_OF_TWO_SLOTS)
    except exceptions.NoPermissionError:
        pass  # in the list of missing rights
    except exceptions.ResponseError as exc:
        if str(exc).startswith("unknown command") and await _is_sentinel(redis):
            raise ConfigurationError(SENTINEL_MODE) from exc
        if not str(exc).startswith(CLUSTER_ERRORS):
            raise
        raise ConfigurationError(CLUSTER_MODE.format(url=_cluster_url(redis))) from exc


def _cluster_url(redis: Client) -> str:
    """Return the URL of the cluster to which the server of a client belongs, without a login."""
    address = redis.connection_pool.connection_kwargs
    is_tls = issubclass(redis.connection_pool.connection_class, SSLConnection)
    place = format_authority(address["host"], address["port"]) if "host" in address else "host:port"
    return f"{'rediss' if is_tls else 'redis'}+cluster://{place}"


async def _is_sentinel(redis: Client) -> bool:
    role: Any = await redis.execute_command("ROLE")  # type: ignore[no-untyped-call]
    return bool(role[0] == b"sentinel")


async def missing_rights(redis: Client, commands: Sequence[str] = COMMANDS) -> list[str]:
    """Return what the user of this client may not do: commands, `keys` or `channels`.

    Args:
        commands: those to ask for.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    with translated():
        connection = await redis.connection_pool.get_connection()
        try:
            refused = await _ask(connection, TRANSACTION)
            if not refused and await _begin(connection):
                refused = await _ask(connection, commands)
        finally:
            # The transaction ends with its connection.
            await connection.disconnect(nowait=True)
            await redis.connection_pool.release(connection)
    return refused


async def _begin(connection: Any) -> bool:
    """Begin a transaction. False: there is none, and a command would be executed."""
    await connection.send_command("MULTI", check_health=False)
    try:
        return bool(await connection.read_response() == b"OK")
    except exceptions.ConnectionError:
        raise
    except exceptions.ResponseError:
        return False


async def _ask(connection: Any, commands: Iterable[str]) -> list[str]:
    """Send the commands, and return the names of those that this user may not run."""
    named = [(command.split(" ")[0], _words(command)) for command in commands]
    await connection.send_packed_command(
        connection.pack_commands([words for _, words in named]), check_health=False
    )
    refused = []
    for name, _ in named:
        try:
            await connection.read_response()
        except exceptions.ConnectionError:
            raise
        except exceptions.ResponseError as exc:
            if (what := _refused(name, exc)) and what not in refused:
                refused.append(what)
    return refused


def _words(command: str) -> list[str]:
    name, *rest = command.split(" ")
    if name == "EVAL":  # its script has spaces
        return ["EVAL", "return 1", "1", rest[-1]]
    return [*name.split("|"), *rest]


def _refused(name: str, exc: exceptions.ResponseError) -> str:
    """Return what an error reply refuses for good; "": it is another error."""
    text = str(exc).lower()
    if text.startswith("unknown command"):  # renamed in the server's configuration
        return name
    # A refused EXEC is EXECABORT, "Transaction discarded because of: NOPERM …".
    if not isinstance(exc, exceptions.NoPermissionError) and "noperm" not in text:
        return ""
    if " to run " in text:
        return name
    return f"channels {CHANNEL_PATTERN}" if "channel" in text else f"keys {' '.join(KEY_PATTERNS)}"


def _lacks(missing: list[str]) -> str:
    return f"the user in TAILRACE_REDIS_URL has no right to {', '.join(missing)}"


# The place of arq's queue


async def find_jobs_url(settings: Settings) -> tuple[RedisUrl, bool]:
    """Return where arq keeps its queue, and whether it shares the database of all other data.

    The place is TAILRACE_JOBS_REDIS_URL, else the database after that of TAILRACE_REDIS_URL, else,
    if that database does not exist or may not be used, the database of TAILRACE_REDIS_URL itself.

    Raises:
        ConfigurationError: the place that TAILRACE_JOBS_REDIS_URL names cannot be used, or is not
            named although all other data is on a cluster.
        Unavailable: Redis did not answer in time.
    """
    if settings.jobs_redis_url:
        url = read_redis_url(settings.jobs_redis_url, "TAILRACE_JOBS_REDIS_URL")
        if why := await _refusal(url):
            raise ConfigurationError(f"TAILRACE_JOBS_REDIS_URL: {why}")
        return url, False
    if settings.is_cluster:
        raise ConfigurationError(NO_JOBS_URL)
    url = read_redis_url(settings.named_redis_url(), "TAILRACE_REDIS_URL")
    following = url._replace(database=url.database + 1)
    return (url, True) if await _refusal(following) else (following, False)


async def _refusal(url: RedisUrl) -> str:
    """Return why this database cannot be used; "": it can."""
    async with Redis.from_pool(open_pool(url)) as redis:
        with translated():
            try:
                await _check_sentinels(redis, "its sentinels")
                refusal = await _refusal_at_connecting(redis)
                if not refusal:
                    await check_mode(redis)
            except ConfigurationError as exc:
                return str(exc)
    return refusal


def _is_for_now(exc: exceptions.ResponseError) -> bool:
    """Whether PING may be answered later: Redis also answers it with MISCONF or MASTERDOWN."""
    return is_refusal(exc) and not isinstance(exc, exceptions.NoPermissionError)


async def _refusal_at_connecting(redis: Client) -> str:
    """Return why the server refuses SELECT or CLIENT SETNAME, which precede the first command.

    Returns:
        The server's words, for example that there is no such database; "": nothing is refused.

    Raises:
        redis.exceptions.RedisError: it did not answer.
    """
    try:
        await redis.ping()
    except (exceptions.ConnectionError, exceptions.ResponseError) as exc:
        # On a unix socket redis-py wraps the refusal in a ConnectionError.
        refusal = exc if isinstance(exc, exceptions.ResponseError) else exc.__cause__
        if not isinstance(refusal, exceptions.ResponseError) or _is_for_now(refusal):
            raise
        if "'ping'" in str(refusal):  # it is in the list of missing rights
            return ""
        return str(refusal)
    return ""
