"""Reads a Redis URL: the addresses, the login, the database and the options behind `?`. Pure.

    redis://host:6379/0   rediss://host:6379/0   unix:///run/redis.sock?db=0
    redis+sentinel://s1:26379,s2:26379/service/0   rediss+sentinel://…
    redis+cluster://h1:6379,h2:6379                rediss+cluster://…

Every connection is made from the same reading: redis-py's, arq's and our own. Invariant: an option
either works on all of them or is refused here, in one line without a secret. redis-py would pass
an unknown option to a constructor, and fail there with a traceback.
Source: `parse_url` and the connection classes of redis.asyncio.connection in redis-py 5.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from shared.config.redis_hosts import HostPort, split_hosts
from shared.config.redis_login import RedisLogin
from shared.config.redis_options import read_options
from shared.errors import ConfigurationError

SCHEMES = ("redis", "rediss", "unix")
SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
PORT = 6379
SENTINEL_PORT = 26379
DATABASE_MAX = 2**31 - 1  # Redis reads the number as an int
_SERVICE = re.compile(r"[A-Za-z0-9._-]{1,128}")  # the characters that sentinels allow
QUOTE = "in a user name or password write / as %2F, # as %23, ? as %3F, @ as %40 and : as %3A"

_LOGIN_NAMES = RedisLogin._fields
_SENTINEL_LOGIN_NAMES = tuple(f"sentinel_{name}" for name in _LOGIN_NAMES)


class Sentinels(NamedTuple):
    """The sentinels that know the master of a service.

    Attributes:
        login: for the sentinels themselves; by default they have none.
    """

    hosts: tuple[HostPort, ...]
    service: str
    login: RedisLogin


class RedisUrl(NamedTuple):
    """One Redis URL.

    Attributes:
        host, port: empty and 0 where sentinels or a cluster name the server.
        path: of a unix socket; empty: the address is host and port.
        login: for the server.
        options: redis-py's arguments for one connection, except address, login and database.
        sentinels: None: the URL names the server itself.
        cluster: nodes of the cluster; empty: the URL names no cluster.
    """

    is_tls: bool
    host: str
    port: int
    path: str
    login: RedisLogin
    database: int
    options: Mapping[str, Any]
    sentinels: Sentinels | None = None
    cluster: tuple[HostPort, ...] = ()

    @property
    def tls_options(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name.startswith("ssl_")}


def read_redis_url(text: str, variable: str) -> RedisUrl:
    """Read a URL as redis-py does, and check each part of it.

    Args:
        variable: the setting that holds the URL, for the messages.

    Raises:
        ConfigurationError: redis-py or Tailrace cannot use the URL. The message holds no part of
            the URL that may be a password.
    """
    try:
        url = parse_redis_url(text)
    except ValueError as exc:
        raise ConfigurationError(f"{variable}: {exc}") from None
    return url


def is_cluster_url(text: str) -> bool:
    """Whether a URL names a cluster, whatever else may be wrong with it."""
    return text.partition("://")[0].lower() in CLUSTER_SCHEMES


def parse_redis_url(text: str) -> RedisUrl:
    """Read a URL, also one that names a cluster.

    Raises:
        ValueError: the URL is malformed; the message holds no part of it that may be a password.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() in (*SENTINEL_SCHEMES, *CLUSTER_SCHEMES):
        return _read_hosts(scheme.lower(), rest)
    return _read_server(text)


def _read_server(text: str) -> RedisUrl:
    try:
        url = urlsplit(text)
        port, query = url.port, parse_qs(url.query, keep_blank_values=True)
    except ValueError:
        raise ValueError(f"the host or the port is malformed; {QUOTE}") from None
    _check_scheme(url)
    if url.fragment or "#" in text:
        raise ValueError(f"a # ends a URL; {QUOTE}")
    if port == 0:
        raise ValueError("the port must be from 1 to 65535")
    given = {name: unquote(values[0]).strip() for name, values in query.items()}
    path = "" if url.scheme == "unix" else url.path.strip("/")
    database = _database(given.pop("db", ""), path, "redis://host:6379/0")
    login = _login(unquote(url.username or ""), unquote(url.password or ""), given)
    return RedisUrl(
        is_tls=url.scheme == "rediss",
        host="" if url.scheme == "unix" else unquote(url.hostname or "localhost"),
        port=port or PORT,
        path=unquote(url.path) if url.scheme == "unix" else "",
        login=login,
        database=database,
        options=read_options(given, url.scheme, _LOGIN_NAMES),
    )


def _read_hosts(scheme: str, rest: str) -> RedisUrl:
    """Read what follows `://` in a URL of sentinels or of a cluster."""
    if "#" in rest:
        raise ValueError(f"a # ends a URL; {QUOTE}")
    is_sentinel = scheme in SENTINEL_SCHEMES
    try:
        parts = split_hosts(rest, SENTINEL_PORT if is_sentinel else PORT)
        query = parse_qs(parts.query, keep_blank_values=True)
    except ValueError as exc:
        what = f"the list of hosts cannot be read: {exc}"
        raise ValueError(f"{what}; write {scheme}://host:port,host:port; {QUOTE}") from None
    given = {name: unquote(values[0]).strip() for name, values in query.items()}
    service, path = "", parts.path.strip("/")
    if is_sentinel:
        service, _, path = path.partition("/")
        service = _service(unquote(service), scheme)
    login_names = (*_LOGIN_NAMES, *_SENTINEL_LOGIN_NAMES) if is_sentinel else _LOGIN_NAMES
    login = _login(parts.username, parts.password, given)
    sentinel_login = _login("", "", given, "sentinel_") if is_sentinel else RedisLogin()
    database = _database(given.pop("db", ""), path, f"{scheme}://host:26379/service/0")
    if database and not is_sentinel:
        raise ValueError(f"a cluster has only database 0, and the URL names {database}")
    return RedisUrl(
        is_tls=scheme.startswith("rediss"),
        host="",
        port=0,
        path="",
        login=login,
        database=database,
        options=read_options(given, scheme, login_names),
        sentinels=Sentinels(parts.hosts, service, sentinel_login) if is_sentinel else None,
        cluster=() if is_sentinel else parts.hosts,
    )


def _service(text: str, scheme: str) -> str:
    """Check the name that the sentinels have for the master and its replicas."""
    if not text:
        raise ValueError(f"the service is missing, as in {scheme}://host:26379/service/0")
    if not _SERVICE.fullmatch(text):
        # Not quoted: a / in a password makes the rest of the password look like the service.
        raise ValueError(f"the service may hold letters, digits, dots, - and _ only; {QUOTE}")
    return text


def _login(username: str, password: str, given: dict[str, str], prefix: str = "") -> RedisLogin:
    """Take the login out of the options; the part before @ wins, as in redis-py."""
    named = {name: given.pop(prefix + name, None) for name in RedisLogin._fields}
    for name, value in named.items():
        if name.endswith("_file") and value == "":
            raise ValueError(f"{prefix}{name} is empty")
    login = RedisLogin(
        username or named["username"] or "",
        password or named["password"] or "",
        named["username_file"] or "",
        named["password_file"] or "",
    )
    for name in ("username", "password"):
        if getattr(login, name) and getattr(login, f"{name}_file"):
            raise ValueError(f"the URL has a {prefix}{name} and {prefix}{name}_file: give one")
    return login


def _check_scheme(url: SplitResult) -> None:
    if url.scheme not in SCHEMES:
        raise ValueError(
            "must start with redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, "
            "redis+cluster:// or rediss+cluster://"
        )
    if url.scheme == "unix" and not url.path:
        raise ValueError("unix:// needs the path of a socket, such as unix:///run/redis.sock")


def _database(given: str, path: str, example: str) -> int:
    """Return the number of the database. redis-py would take 0 for a path that is no number."""
    text = given or unquote(path) or "0"
    if not (text.isascii() and text.isdigit() and int(text[:11]) <= DATABASE_MAX):
        raise ValueError(f"the database must be a number, as in {example}; {QUOTE}")
    return int(text)
