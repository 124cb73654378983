"""DNS rebinding: a page whose own name leads to a node is answered nothing, and opens no socket.

The browser takes such a node for the page's own server. Only `Host` shows it, so a request must
have exactly one, and on a node without credentials it must be a name that no stranger can own.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from unittest.mock import MagicMock

import pytest

from api.app import http_routes, socket_routes
from shared.config.settings import Settings
from tests.support.processes import Deployment, Role
from tests.support.raw_client import RawClient
from tests.support.raw_wire import first_line, handshake

REBOUND = "rebind.example"
NODE = MagicMock(settings=Settings())
PATHS = [re.sub(r"\{.*?\}", "gen_12345678", route.path) for route in http_routes(NODE)]
SOCKETS = [route.path for route in socket_routes(NODE)]


def request(*hosts: str, method: str = "GET", path: str = "/livez", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", *(f"Host: {host}" for host in hosts)]
    return "\r\n".join([*lines, "Connection: close", "Content-Length: 0", "", ""]).encode()


async def status(url: str, sent: bytes) -> int:
    line = await first_line(url, sent)
    match = re.match(rb"HTTP/1\.[01] ([0-9]{3}) ", line)
    assert match is not None, line
    return int(match[1])


@pytest.fixture
def host(api: RawClient) -> str:
    """The name by which the node under attack is asked."""
    return api.url.partition("://")[2]


async def test_a_request_without_a_host_is_refused(api: RawClient) -> None:
    assert await status(api.url, request()) == 400
    assert await status(api.url, request(method="POST", path="/v1/generations")) == 400


async def test_a_request_with_two_hosts_is_refused(api: RawClient, host: str) -> None:
    for hosts in ((host, host), (host, REBOUND), (REBOUND, host)):
        assert await status(api.url, request(*hosts)) == 400


@pytest.mark.parametrize("bad", ["", "a b", "me@localhost", "localhost/x", "[::1", "localhost:x"])
async def test_a_request_with_an_invalid_host_is_refused(api: RawClient, bad: str) -> None:
    assert await status(api.url, request(bad)) == 400


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_handshake_needs_one_valid_host(api: RawClient, host: str, path: str) -> None:
    for changes in ({"Host": None}, {"host": host}, {"Host": "me@localhost"}):
        assert await status(api.url, handshake(api.url, changes, path=path)) == 400


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_request_for_a_foreign_name_is_refused(node: Role, method: str) -> None:
    for path in PATHS:
        sent = request(f"{REBOUND}:{node.port}", method=method, path=path)
        assert await status(node.url, sent) == 403, path


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_foreign_name_opens_no_socket(node: Role, path: str) -> None:
    """Its origin is its own: that rule alone would let it in."""
    changes: dict[str, str | None] = {"Host": REBOUND, "Origin": f"http://{REBOUND}"}

    assert await status(node.url, handshake(node.url, changes, path=path)) == 403


@pytest.mark.parametrize(
    "name",
    ["localhost.rebind.example", "127.0.0.1.rebind.example", "0x7f.1", "127.1", "2130706433",
     "0177.0.0.1", "127.0.0.1.", "[::2]", "192.0.2.1"],
)  # fmt: skip
async def test_a_name_that_only_resembles_a_loopback_name_is_foreign(node: Role, name: str) -> None:
    assert await status(node.url, request(name)) == 403


@pytest.mark.parametrize(
    "name", ["localhost", "LOCALHOST.:1", "app.localhost", "127.0.0.1", "127.9.9.9:80", "[::1]:80"]
)
async def test_loopback_names_are_served(node: Role, name: str) -> None:
    assert await status(node.url, request(name)) == 200


async def test_a_client_of_http_1_0_needs_no_host(node: Role) -> None:
    assert await status(node.url, request(version="1.0")) == 200


@pytest.fixture(scope="module")
async def wide(own_deployment: type[Deployment]) -> AsyncIterator[Deployment]:
    """A node on all addresses that lets everybody in, and one beside it that asks for a key."""
    settings = {"host": "0.0.0.0", "auth": "off", "hosts": "node.example,*.wild.example"}
    async with own_deployment(api=2, workers=1, settings=settings) as deployment:
        keyed = deployment.api[1]
        keyed.kill()
        del keyed.settings["TAILRACE_AUTH"], keyed.settings["TAILRACE_HOSTS"]
        keyed.settings["TAILRACE_API_KEYS"] = "a-long-enough-key:alice"
        await keyed.start().ready()
        yield deployment


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("node.example", 200),
        ("Node.Example:8080", 200),
        ("a.wild.example", 200),
        ("wild.example", 403),
        ("127.0.0.1", 200),
        ("192.0.2.1", 403),
        (REBOUND, 403),
    ],
)
async def test_names_in_the_operators_list_are_served(
    wide: Deployment, name: str, expected: int
) -> None:
    assert await status(wide.urls[0], request(name)) == expected
    socket = handshake(wide.urls[0], {"Host": name})
    assert await status(wide.urls[0], socket) == (101 if expected == 200 else 403)


async def test_a_node_with_credentials_answers_to_any_one_name(wide: Deployment) -> None:
    url = wide.urls[1]

    assert await status(url, request(REBOUND)) == 200
    assert await status(url, request(REBOUND, path="/v1/generations")) == 401
    assert await status(url, request()) == 400
    assert await status(url, request(REBOUND, REBOUND)) == 400
