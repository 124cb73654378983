"""Reads the options behind `?` of a Redis URL, except login and database. Pure.

Invariant: an option either works on all connections or is refused here. redis-py would pass an
unknown option to a constructor, and fail there with a traceback.
Source: the connection classes of redis.asyncio.connection in redis-py 5.3.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any

_WORDS = {
    **dict.fromkeys(("1", "t", "true", "y", "yes", "on"), True),
    **dict.fromkeys(("0", "f", "false", "n", "no", "off"), False),
}
_CERT_REQS = ("required", "optional", "none")
_TLS_VERSIONS = {"tlsv1.2": ssl.TLSVersion.TLSv1_2, "tlsv1.3": ssl.TLSVersion.TLSv1_3}


def read_options(given: Mapping[str, str], scheme: str, taken: tuple[str, ...]) -> dict[str, Any]:
    """Read the options of a URL.

    Args:
        taken: the names of options that the caller has read, for the message about unknown ones.

    Raises:
        ValueError: an option is unknown, has a wrong value, or does not fit the scheme.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in _FIXED:
            _check_fixed(name, value)
        elif name in _SET_BY_US:
            raise ValueError(f"Tailrace sets {name} itself: remove this option")
        elif name not in _READERS:
            known = ", ".join(sorted(["db", *taken, *_READERS]))
            raise ValueError(f"{name[:40]!r} is not an option of the URL; these are: {known}")
        elif name.startswith("ssl_") and not scheme.startswith("rediss"):
            with_tls = (
                "rediss://" if scheme == "unix" else f"rediss{scheme.removeprefix('redis')}://"
            )
            raise ValueError(f"{name} is for {with_tls}, and this URL has no TLS")
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
