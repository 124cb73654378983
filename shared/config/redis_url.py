"""Reads a Redis URL: the address, the login, the database and the options behind `?`. Pure.

Every connection is made from the same reading: redis-py's, arq's and our own. Invariant: an option
either works on all of them or is refused here, in one line without a secret. redis-py would pass
an unknown option to a constructor, and fail there with a traceback.
Source: `parse_url` and the connection classes of redis.asyncio.connection in redis-py 5.3.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from shared.errors import ConfigurationError

SCHEMES = ("redis", "rediss", "unix")
PORT = 6379
DATABASE_MAX = 2**31 - 1  # Redis reads the number as an int
QUOTE = "in a user name or password write / as %2F, # as %23, ? as %3F, @ as %40 and : as %3A"

_WORDS = {
    **dict.fromkeys(("1", "t", "true", "y", "yes", "on"), True),
    **dict.fromkeys(("0", "f", "false", "n", "no", "off"), False),
}
_CERT_REQS = ("required", "optional", "none")
_TLS_VERSIONS = {"tlsv1.2": ssl.TLSVersion.TLSv1_2, "tlsv1.3": ssl.TLSVersion.TLSv1_3}


class RedisUrl(NamedTuple):
    """One Redis URL.

    Attributes:
        path: of a unix socket; empty: the address is host and port.
        options: redis-py's arguments for one connection, except address, login and database.
    """

    is_tls: bool
    host: str
    port: int
    path: str
    username: str
    password: str
    database: int
    options: Mapping[str, Any]

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
        return _read(text)
    except ValueError as exc:
        raise ConfigurationError(f"{variable}: {exc}") from None


def _read(text: str) -> RedisUrl:
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
    database = _database(given.pop("db", ""), url)
    return RedisUrl(
        is_tls=url.scheme == "rediss",
        host="" if url.scheme == "unix" else unquote(url.hostname or "localhost"),
        port=port or PORT,
        path=unquote(url.path) if url.scheme == "unix" else "",
        username=unquote(url.username or "") or given.pop("username", ""),
        password=unquote(url.password or "") or given.pop("password", ""),
        database=database,
        options=_options(given, url.scheme),
    )


def _check_scheme(url: SplitResult) -> None:
    if url.scheme in ("redis+cluster", "redis+sentinel"):
        raise ValueError(f"{url.scheme}:// is not built yet; use redis://, rediss:// or unix://")
    if url.scheme not in SCHEMES:
        raise ValueError("must start with redis://, rediss:// or unix://")
    if url.scheme == "unix" and not url.path:
        raise ValueError("unix:// needs the path of a socket, such as unix:///run/redis.sock")


def _database(given: str, url: SplitResult) -> int:
    """Return the number of the database. redis-py would take 0 for a path that is no number."""
    path = "" if url.scheme == "unix" else url.path.strip("/")
    text = given or unquote(path) or "0"
    if not (text.isascii() and text.isdigit() and int(text[:11]) <= DATABASE_MAX):
        raise ValueError(f"the database must be a number, as in redis://host:6379/0; {QUOTE}")
    return int(text)


def _options(given: Mapping[str, str], scheme: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in ("username", "password"):
            continue  # the part before @ wins, as in redis-py
        if name in _FIXED:
            _check_fixed(name, value)
        elif name in _SET_BY_US:
            raise ValueError(f"Tailrace sets {name} itself: remove this option")
        elif name not in _READERS:
            known = ", ".join(sorted(["db", *_READERS]))
            raise ValueError(f"{name[:40]!r} is not an option of the URL; these are: {known}")
        elif name.startswith("ssl_") and scheme != "rediss":
            raise ValueError(f"{name} is for rediss://, and this URL has no TLS")
        elif name == "socket_keepalive" and scheme == "unix":
            raise ValueError(f"{name} is for redis:// and rediss://: a unix socket has none")
        else:
            found[name] = _READERS[name](name, value)
    _check_tls(found)
    return found


def _check_fixed(name: str, value: str) -> None:
    if value.lower() not in _FIXED[name]:
        needed = _FIXED[name][0]
        raise ValueError(f"Tailrace needs {name}={needed}: remove this option")


def _check_tls(options: Mapping[str, Any]) -> None:
    if ("ssl_certfile" in options) != ("ssl_keyfile" in options):
        raise ValueError("ssl_certfile and ssl_keyfile belong together: give both")
    if options.get("ssl_check_hostname") and options.get("ssl_cert_reqs") == "none":
        raise ValueError("ssl_check_hostname needs ssl_cert_reqs=required")


def _text(name: str, value: str) -> str:
    if not value:
        raise ValueError(f"{name} is empty")
    return value


def _word(name: str, value: str) -> str:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(f"{name} must be one ASCII word")  # CLIENT SETNAME refuses others
    return _text(name, value)


def _bool(name: str, value: str) -> bool:
    if value.lower() not in _WORDS:
        raise ValueError(f"{name} must be true or false")
    return _WORDS[value.lower()]


def _seconds(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 6):
        raise ValueError(f"{name} must be a whole number of seconds")
    return int(value)


def _cert_reqs(name: str, value: str) -> str:
    word = value.lower().removeprefix("cert_")  # CERT_NONE is how other clients write it
    if word not in _CERT_REQS:
        raise ValueError(f"{name} must be one of {', '.join(_CERT_REQS)}")
    return word


def _tls_version(name: str, value: str) -> ssl.TLSVersion:
    if value.lower() not in _TLS_VERSIONS:
        raise ValueError(f"{name} must be TLSv1.2 or TLSv1.3")
    return _TLS_VERSIONS[value.lower()]


_READERS: dict[str, Callable[[str, str], Any]] = {
    "client_name": _word,
    "health_check_interval": _seconds,
    "socket_keepalive": _bool,
    "ssl_ca_certs": _text,
    "ssl_ca_data": _text,
    "ssl_cert_reqs": _cert_reqs,
    "ssl_certfile": _text,
    "ssl_check_hostname": _bool,
    "ssl_ciphers": _text,
    "ssl_keyfile": _text,
    "ssl_min_version": _tls_version,
}
# Redundant, but harmless, with the value that Tailrace uses anyway.
_FIXED = {
    "protocol": ("2",),
    "decode_responses": ("false", "0", "f", "n", "no", "off"),
    "encoding": ("utf-8", "utf8"),
    "encoding_errors": ("strict",),
    "retry_on_timeout": ("false", "0", "f", "n", "no", "off"),
}
# With another value a promise about times, memory or repeats would break, or these are objects.
_SET_BY_US = (
    "connection_class", "credential_provider", "encoder_class", "event_dispatcher", "lib_name",
    "lib_version", "max_connections", "parser_class", "redis_connect_func", "retry",
    "retry_on_error", "socket_connect_timeout", "socket_keepalive_options", "socket_read_size",
    "socket_timeout", "socket_type", "timeout",
)  # fmt: skip
