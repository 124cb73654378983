"""What the gate lets through: hosts and sites, on any route, before anything else is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from api.app import SHAPES, http_routes
from api.edge.auth import Authenticator, read_origins
from api.edge.gate import SAFE_METHODS, Gate
from api.edge.host_names import Hosts
from shared.config.credentials import Identity
from shared.errors import RequestError
from tests.support.shell import ALICE, Shell

OWN, LISTED, FOREIGN = "http://localhost:8000", "https://app.example", "https://evil.example"
OPEN = Authenticator({}, read_origins(LISTED), Hosts("127.0.0.1", ("node.example",)))
KEYED = Authenticator({"k": Identity("ann")}, read_origins(LISTED))


async def passes(
    authenticator: Authenticator = OPEN,
    *headers: tuple[str, str],
    method: str = "POST",
    **scope: Any,
) -> str:
    """Send one request through a gate; return its error code, or nothing where it went through."""
    reached = []

    async def app(*_: Any) -> None:
        reached.append(1)

    asked = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": "/",
        "server": ("127.0.0.1", 8000),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        **scope,
    }
    nothing: Any = None
    try:
        await Gate(app, authenticator)(asked, nothing, nothing)
    except RequestError as exc:
        assert not reached
        return exc.code
    assert reached
    return ""


@pytest.mark.parametrize("authenticator", [OPEN, KEYED], ids=["open", "with keys"])
@pytest.mark.parametrize(
    "hosts",
    [
        (),
        ("",),
        ("localhost", "localhost"),
        ("localhost", "evil.example"),
        ("me@localhost",),
        ("b\xfccher",),
    ],
)
async def test_exactly_one_valid_host(authenticator: Authenticator, hosts: tuple[str]) -> None:
    headers = [("host", host) for host in hosts]

    assert await passes(authenticator, *headers, method="GET") == "host_invalid"


async def test_http_1_0_may_come_without_a_host() -> None:
    assert await passes(OPEN, http_version="1.0", method="GET") == ""
    assert await passes(OPEN, ("host", "evil"), http_version="1.0") == "forbidden"
    twice = [("host", "localhost")] * 2
    assert await passes(OPEN, *twice, http_version="1.0") == "host_invalid"


async def test_a_strangers_name_is_refused_on_a_node_without_credentials_only() -> None:
    for method in ("GET", "POST"):
        assert await passes(OPEN, ("host", "evil.example"), method=method) == "forbidden"
        assert await passes(OPEN, ("host", "node.example:80"), method=method) == ""
        assert await passes(KEYED, ("host", "evil.example"), method=method) == ""
    assert await passes(OPEN, ("host", "evil.example"), type="websocket") == "forbidden"


async def test_the_address_that_the_connection_came_to_is_answered() -> None:
    anywhere = Authenticator({}, (), Hosts("0.0.0.0"))

    for server in (("192.0.2.7", 8000), ("::ffff:192.0.2.7", 8000)):
        assert await passes(anywhere, ("host", "192.0.2.7:80"), server=server) == ""
    for server in (("192.0.2.8", 8000), None):
        assert await passes(anywhere, ("host", "192.0.2.7:80"), server=server) == "forbidden"


SITES = [
    # origin, sec-fetch-site, is let through
    (None, None, True),
    (OWN, None, True),
    (OWN, "same-origin", True),
    (OWN, "cross-site", False),  # another scheme, which the authority does not show
    (LISTED, None, True),
    (LISTED, "cross-site", True),
    (FOREIGN, None, False),
    (FOREIGN, "cross-site", False),
    (FOREIGN, "same-origin", False),
    ("http://localhost:8001", "same-site", False),
    ("null", None, False),
    ("null", "cross-site", False),
    ("", None, False),
    (None, "same-origin", True),
    (None, "none", True),
    (None, "cross-site", False),
    (None, "same-site", False),
    (None, "something new", False),
    (None, "", False),
]


@pytest.mark.parametrize("authenticator", [OPEN, KEYED], ids=["open", "with keys"])
@pytest.mark.parametrize(("origin", "site", "is_let_in"), SITES)
async def test_sites(
    authenticator: Authenticator, origin: str | None, site: str | None, is_let_in: bool
) -> None:
    headers = [("host", "localhost:8000")]
    headers += [("origin", origin)] if origin is not None else []
    headers += [("sec-fetch-site", site)] if site is not None else []

    said = "" if is_let_in else "forbidden"
    for method in ("POST", "DELETE", "PUT", "BREW"):
        assert await passes(authenticator, *headers, method=method) == said
    assert await passes(authenticator, *headers, type="websocket") == said
    for method in SAFE_METHODS:
        assert await passes(authenticator, *headers, method=method) == ""


async def test_two_origins_are_none_that_is_listed() -> None:
    for second in (FOREIGN, LISTED):
        headers = [("host", "localhost:8000"), ("origin", LISTED), ("origin", second)]
        assert await passes(OPEN, *headers) == "forbidden"
    sites = [("host", "localhost"), ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")]
    assert await passes(OPEN, *sites) == "forbidden"


async def test_a_star_lets_every_site_in() -> None:
    everywhere = Authenticator({}, read_origins("*"))

    for extra in (("origin", FOREIGN), ("origin", "null"), ("sec-fetch-site", "cross-site")):
        assert await passes(everywhere, ("host", "localhost"), extra) == ""


async def test_a_refusal_has_the_shape_of_its_dialect_and_is_counted() -> None:
    shell = Shell()
    headers = {**ALICE, "origin": FOREIGN}
    for route in http_routes(shell.node):
        answer = await shell.client.post(route.path, headers=headers, content=b"{")
        assert answer.status_code == 403, route.path
        shaped = next((shape for prefix, shape in SHAPES if route.path.startswith(prefix)), None)
        if shaped is None:
            assert answer.json()["error"]["code"] == "forbidden"
        elif "deep-chat" in route.path:
            assert isinstance(answer.json()["error"], str)
    text = shell.node.metrics.render().decode()
    assert 'tailrace_http_requests_total{method="POST",route="none",status="403"}' in text
    await shell.client.aclose()
    await shell.redis.aclose()
