"""Redis URLs: each option of redis-py works, or is one line; no line holds a secret."""

from __future__ import annotations

import inspect
import ssl
from typing import Any

import pytest
from redis.asyncio import Connection, ConnectionPool, SSLConnection
from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS, AbstractConnection

from shared.config import redis_url
from shared.config.redis_url import RedisUrl, read_redis_url
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from shared.redis.client import open_pool, tls_context

VARIABLE = "TAILRACE_REDIS_URL"


def read(text: str) -> RedisUrl:
    return read_redis_url(text, VARIABLE)


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("redis://h", {"host": "h", "port": 6379, "database": 0, "is_tls": False}),
        ("redis://", {"host": "localhost", "port": 6379}),
        ("redis://h:1/2", {"port": 1, "database": 2}),
        ("redis://h/2/", {"database": 2}),
        ("redis://h/2?db=3", {"database": 3}),
        ("redis://[::1]:7/0", {"host": "::1", "port": 7}),
        ("rediss://h", {"is_tls": True}),
        ("unix:///run/s?db=4", {"path": "/run/s", "database": 4, "host": ""}),
        ("unix://me:pw@/run/s", {"path": "/run/s", "username": "me", "password": "pw"}),
        ("redis://me:p%23%2F%40@h", {"username": "me", "password": "p#/@"}),
        ("redis://:pw@h", {"username": "", "password": "pw"}),
        ("redis://h?username=me&password=pw", {"username": "me", "password": "pw"}),
        ("redis://me:pw@h?password=other", {"password": "pw"}),
        ("redis://h?protocol=2&decode_responses=False&encoding=utf-8", {"options": {}}),
        ("redis://h?client_name=tailrace", {"options": {"client_name": "tailrace"}}),
        ("redis://h?health_check_interval=30", {"options": {"health_check_interval": 30}}),
        ("redis://h?socket_keepalive=yes", {"options": {"socket_keepalive": True}}),
        ("rediss://h?ssl_cert_reqs=none", {"options": {"ssl_cert_reqs": "none"}}),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", {"options": {"ssl_cert_reqs": "none"}}),
        ("rediss://h?ssl_check_hostname=true", {"options": {"ssl_check_hostname": True}}),
        (
            "rediss://h?ssl_min_version=TLSv1.3",
            {"options": {"ssl_min_version": ssl.TLSVersion.TLSv1_3}},
        ),
    ],
)
def test_what_a_url_says(text: str, members: dict[str, Any]) -> None:
    found = read(text)

    assert {name: getattr(found, name) for name in members} == members
    open_pool(found).make_connection()  # redis-py takes every option
    tls_context(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("localhost:6379", "must start with"),
        ("http://h", "must start with"),
        ("redis+cluster://h", "not built yet"),
        ("unix://", "needs the path"),
        ("redis://[::1", "host or the port is malformed"),
        ("redis://h:port", "host or the port is malformed"),
        ("redis://h:99999", "host or the port is malformed"),
        ("redis://h:0", "from 1 to 65535"),
        ("redis://:secret/x@h", "write / as %2F"),
        ("redis://:12/secret@h", "write / as %2F"),
        ("redis://:secret#x@h", "write / as %2F"),
        ("redis://:secret?x@h/0", "write / as %2F"),
        ("redis://h/0#secret", "# as %23"),
        ("redis://h/prod", "database must be a number"),
        ("redis://h/1/2", "database must be a number"),
        ("redis://h/-1", "database must be a number"),
        ("redis://h?db=x", "database must be a number"),
        ("redis://h/99999999999", "database must be a number"),
        ("redis://h?decode_responses=true", "needs decode_responses=false"),
        ("redis://h?protocol=3", "needs protocol=2"),
        ("redis://h?encoding=latin-1", "needs encoding=utf-8"),
        ("redis://h?retry_on_timeout=1", "needs retry_on_timeout=false"),
        ("redis://h?socket_timeout=30", "sets socket_timeout itself"),
        ("redis://h?max_connections=5", "sets max_connections itself"),
        ("redis://h?ssl_cert_reqs=none", "is for rediss://"),
        ("rediss://h?ssl_cert_reqs=maybe", "required, optional, none"),
        ("rediss://h?ssl_certfile=/c", "belong together"),
        ("rediss://h?ssl_check_hostname=1&ssl_cert_reqs=none", "needs ssl_cert_reqs"),
        ("rediss://h?ssl_check_hostname=perhaps", "true or false"),
        ("rediss://h?ssl_min_version=SSLv3", "TLSv1.2 or TLSv1.3"),
        ("rediss://h?ssl_ca_certs=", "ssl_ca_certs is empty"),
        ("redis://h?health_check_interval=soon", "whole number of seconds"),
        ("redis://h?client_name=two%20words", "one ASCII word"),
        ("unix:///s?socket_keepalive=1", "a unix socket has none"),
        ("redis://h?ssl=true", "'ssl' is not an option"),
        ("redis://h?abortConnect=false", "'abortConnect' is not an option"),
    ],
)
@pytest.mark.parametrize("name", ["redis_url", "jobs_redis_url"])
def test_a_url_that_cannot_be_used_is_one_line(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        Settings(**{name: text})  # type: ignore[arg-type]

    said = str(error.value)
    assert message in said and said.startswith(f"TAILRACE_{name.upper()}: ")
    assert "\n" not in said and "secret" not in said


@pytest.mark.parametrize(
    "options",
    [
        "ssl_ca_certs=/no/such/file",
        "ssl_ca_data=nonsense",
        "ssl_certfile=/no/such/file&ssl_keyfile=/no/such/file",
        "ssl_ciphers=nonsense",
    ],
)
def test_a_tls_file_that_cannot_be_used_is_one_line(options: str) -> None:
    """redis-py would find out at each connection, and the role would wait for Redis forever."""
    with pytest.raises(ConfigurationError, match="cannot be used"):
        open_pool(read(f"rediss://h?{options}"))


def test_each_option_of_redis_py_is_decided() -> None:
    """A newer redis-py may have further ones: each has to be read, fixed or refused by name."""
    taken = {"host", "port", "path", "db", "username", "password", "kwargs", "self"}
    known: set[str] = set(URL_QUERY_ARGUMENT_PARSERS)
    for kind in (AbstractConnection, Connection, SSLConnection, ConnectionPool):
        known |= set(inspect.signature(kind.__init__).parameters)
    decided = {*redis_url._READERS, *redis_url._FIXED, *redis_url._SET_BY_US}

    assert known - taken - {"connection_kwargs"} == decided
