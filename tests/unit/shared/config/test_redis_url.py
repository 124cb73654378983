"""Redis URLs: each option of redis-py works, or is one line; no line holds a secret."""

from __future__ import annotations

import inspect
import ssl
from typing import Any

import pytest
from redis.asyncio import Connection, ConnectionPool, SSLConnection
from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS, AbstractConnection

from shared.config import redis_options
from shared.config.redis_login import RedisLogin
from shared.config.redis_url import RedisUrl, parse_redis_url, read_redis_url
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from shared.redis.client import open_pool
from shared.redis.wire import tls_context

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
        ("unix://me:pw@/run/s", {"path": "/run/s", "login": RedisLogin("me", "pw")}),
        ("redis://me:p%23%2F%40@h", {"login": RedisLogin("me", "p#/@")}),
        ("redis://:pw@h", {"login": RedisLogin("", "pw")}),
        ("redis://h?username=me&password=pw", {"login": RedisLogin("me", "pw")}),
        ("redis://me:pw@h?password=other", {"login": RedisLogin("me", "pw")}),
        ("redis://me@h?password_file=/run/p", {"login": RedisLogin("me", "", "", "/run/p")}),
        (
            "redis://h?username_file=/run/u&password_file=/run/p",
            {"login": RedisLogin("", "", "/run/u", "/run/p")},
        ),
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
    if not found.login.password_file:
        open_pool(found).make_connection()  # redis-py takes every option
        tls_context(found)


NONE = RedisLogin()


@pytest.mark.parametrize(
    ("text", "sentinels", "members"),
    [
        (
            "redis+sentinel://s1:1,s2:2/mine/3",
            ((("s1", 1), ("s2", 2)), "mine", NONE),
            {"database": 3, "is_tls": False, "login": NONE, "host": "", "port": 0, "cluster": ()},
        ),
        ("redis+sentinel://s1/mine", ((("s1", 26379),), "mine", NONE), {"database": 0}),
        ("REDIS+SENTINEL://s1/my.db_1-a/", ((("s1", 26379),), "my.db_1-a", NONE), {}),
        ("redis+sentinel://s1/mine?db=4", ((("s1", 26379),), "mine", NONE), {"database": 4}),
        (
            "redis+sentinel://[::1]:7,[2001:db8::2],10.0.0.3:9/mine",
            ((("::1", 7), ("2001:db8::2", 26379), ("10.0.0.3", 9)), "mine", NONE),
            {},
        ),
        ("redis+sentinel://[fe80::1%25eth0]/m", ((("fe80::1%eth0", 26379),), "m", NONE), {}),
        (
            "rediss+sentinel://me:p%40%2F%2C@s1/mine?ssl_ca_certs=/ca&client_name=tr",
            ((("s1", 26379),), "mine", NONE),
            {
                "is_tls": True,
                "login": RedisLogin("me", "p@/,"),
                "options": {"ssl_ca_certs": "/ca", "client_name": "tr"},
            },
        ),
        (
            "redis+sentinel://me:pw@s1/mine?sentinel_username=us&sentinel_password=p2",
            ((("s1", 26379),), "mine", RedisLogin("us", "p2")),
            {"login": RedisLogin("me", "pw")},
        ),
        (
            "redis+sentinel://s1/mine?password_file=/p&sentinel_password_file=/q",
            ((("s1", 26379),), "mine", RedisLogin("", "", "", "/q")),
            {"login": RedisLogin("", "", "", "/p")},
        ),
    ],
)
def test_what_a_sentinel_url_says(text: str, sentinels: Any, members: dict[str, Any]) -> None:
    found = parse_redis_url(text)

    assert found.sentinels == sentinels
    assert {name: getattr(found, name) for name in members} == members


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("redis+cluster://h1", {"cluster": (("h1", 6379),), "is_tls": False, "sentinels": None}),
        ("redis+cluster://h1:1,[::1]:2/", {"cluster": (("h1", 1), ("::1", 2)), "database": 0}),
        ("redis+cluster://h1/0", {"database": 0}),
        (
            "rediss+cluster://me:pw@h1,h2?ssl_cert_reqs=none",
            {"is_tls": True, "login": RedisLogin("me", "pw"), "options": {"ssl_cert_reqs": "none"}},
        ),
    ],
)
def test_what_a_cluster_url_says(text: str, members: dict[str, Any]) -> None:
    found = parse_redis_url(text)

    assert {name: getattr(found, name) for name in members} == members


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("localhost:6379", "must start with"),
        ("http://h", "must start with"),
        ("redis+cluster://h/1", "a cluster has only database 0"),
        ("redis+cluster://", "the list of hosts cannot be read"),
        ("redis+cluster://h1,,h2", "the list of hosts cannot be read"),
        ("redis+cluster://h1:0", "from 1 to 65535"),
        ("redis+sentinel://s1", "the service is missing"),
        ("redis+sentinel://s1/", "the service is missing"),
        ("redis+sentinel://s1/0?db=x", "database must be a number"),
        ("redis+sentinel:///mine", "the list of hosts cannot be read"),
        ("redis+sentinel://s1:port/mine", "the list of hosts cannot be read"),
        ("redis+sentinel://s1:99999/mine", "from 1 to 65535"),
        ("redis+sentinel://s1:/mine", "from 1 to 65535"),
        ("redis+sentinel://s1,s1/mine", "a host is named twice"),
        ("redis+sentinel://s1:26379,s1/mine", "a host is named twice"),
        ("redis+sentinel://::1/mine", "the list of hosts cannot be read"),
        ("redis+sentinel://[::g]/mine", "the list of hosts cannot be read"),
        ("redis+sentinel://[::1/mine", "the list of hosts cannot be read"),
        ("redis+sentinel://s 1/mine", "the list of hosts cannot be read"),
        ("redis+sentinel://" + ",".join(f"s{n}" for n in range(33)) + "/m", "name at most 32"),
        ("redis+sentinel://s1/my%20db", "the service may hold"),
        ("redis+sentinel://s1/mine/prod", "database must be a number"),
        ("redis+sentinel://s1/mine/1/2", "database must be a number"),
        ("redis+sentinel://:secret/x@s1/mine", "write / as %2F"),
        ("redis+sentinel://me:12/secret@s1/0", "write / as %2F"),
        ("redis+sentinel://:secret#x@s1/mine", "# as %23"),
        ("redis+sentinel://:secret?x@s1/mine", "write / as %2F"),
        ("redis+sentinel://s1/mine?ssl_cert_reqs=none", "is for rediss+sentinel://"),
        ("redis+sentinel://s1/mine?sentinel_password_file=", "sentinel_password_file is empty"),
        ("redis+sentinel://s1/mine?sentinel_port=1", "sentinel_username_file, socket_keepalive"),
        ("redis+cluster://h?sentinel_password=secret", "is not an option"),
        ("redis://h?sentinel_password=secret", "is not an option"),
        ("redis://h?password_file=", "password_file is empty"),
        ("redis://:secret@h?password_file=/p", "give one"),
        ("redis://h?username=me&username_file=/p", "give one"),
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
    decided = {*redis_options._READERS, *redis_options._FIXED, *redis_options._SET_BY_US}

    assert known - taken - {"connection_kwargs"} == decided
