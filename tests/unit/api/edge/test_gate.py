"""The gate's checks of host and origin, on every route, before any other check."""

from __future__ import annotations

from typing import Any

import pytest

from api.app import SHAPES, http_routes
from api.edge.auth import Authenticator, read_origins
from api.edge.gate import SAFE_METHODS, Gate
from api.edge.host_names import HostAllowlist
from shared.config.credentials import Identity
from shared.errors import RequestError
from tests.support.shell import ALICE, Shell

OWN, LISTED, FOREIGN = "http://localhost:8000", "https://app.example", "https://evil.example"
OPEN = Authenticator({}, read_origins(LISTED), HostAllowlist("127.0.0.1", ("node.example",)))
KEYED = Authenticator({"k": Identity("ann")}, read_origins(LISTED))


async def error_of(
    authenticator: Authenticator = OPEN,
    *headers: tuple[str, str],
    method: str = "POST",
    **members: Any,
) -> str:
    """Send one request through a gate; return its error code, or "" if it passed."""
    reached = []

    async def app(*_: Any) -> None:
        reached.append(1)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": "/",
        "server": ("127.0.0.1", 8000),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        **members,
    }
    nothing: Any = None
    try:
        await Gate(app, authenticator)(scope, nothing, nothing)
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
async def test_a_request_has_exactly_one_valid_host(
    authenticator: Authenticator, hosts: tuple[str]
) -> None:
    headers = [("host", host) for host in hosts]

    assert await error_of(authenticator, *headers, method="GET") == "host_invalid"


async def test_http_1_0_needs_no_host() -> None:
    assert await error_of(OPEN, http_version="1.0", method="GET") == ""
    assert await error_of(OPEN, ("host", "evil"), http_version="1.0") == "forbidden"
    twice = [("host", "localhost")] * 2
    assert await error_of(OPEN, *twice, http_version="1.0") == "host_invalid"


async def test_a_foreign_host_is_refused_only_without_keys() -> None:
    for method in ("GET", "POST"):
        assert await error_of(OPEN, ("host", "evil.example"), method=method) == "forbidden"
        assert await error_of(OPEN, ("host", "node.example:80"), method=method) == ""
        assert await error_of(KEYED, ("host", "evil.example"), method=method) == ""
    assert await error_of(OPEN, ("host", "evil.example"), type="websocket") == "forbidden"


async def test_the_local_address_of_the_connection_is_accepted() -> None:
    anywhere = Authenticator({}, (), HostAllowlist("0.0.0.0"))

    for server in (("192.0.2.7", 8000), ("::ffff:192.0.2.7", 8000)):
        assert await error_of(anywhere, ("host", "192.0.2.7:80"), server=server) == ""
    for server in (("192.0.2.8", 8000), None):
        assert await error_of(anywhere, ("host", "192.0.2.7:80"), server=server) == "forbidden"


SITES = [
    # origin, sec-fetch-site, is accepted
    (None, None, True),
    (OWN, None, True),
    (OWN, "same-origin", True),
    (OWN, "cross-site", False),  # the scheme differs, which Host does not show
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
@pytest.mark.parametrize(("origin", "site", "is_accepted"), SITES)
async def test_requests_from_foreign_sites_are_refused(
    authenticator: Authenticator, origin: str | None, site: str | None, is_accepted: bool
) -> None:
    headers = [("host", "localhost:8000")]
    headers += [("origin", origin)] if origin is not None else []
    headers += [("sec-fetch-site", site)] if site is not None else []

    expected = "" if is_accepted else "forbidden"
    for method in ("POST", "DELETE", "PUT", "BREW"):
        assert await error_of(authenticator, *headers, method=method) == expected
    assert await error_of(authenticator, *headers, type="websocket") == expected
    for method in SAFE_METHODS:
        assert await error_of(authenticator, *headers, method=method) == ""


async def test_two_origin_headers_are_refused() -> None:
    for second in (FOREIGN, LISTED):
        headers = [("host", "localhost:8000"), ("origin", LISTED), ("origin", second)]
        assert await error_of(OPEN, *headers) == "forbidden"
    sites = [("host", "localhost"), ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")]
    assert await error_of(OPEN, *sites) == "forbidden"


async def test_with_a_star_every_site_is_accepted() -> None:
    everywhere = Authenticator({}, read_origins("*"))

    for extra in (("origin", FOREIGN), ("origin", "null"), ("sec-fetch-site", "cross-site")):
        assert await error_of(everywhere, ("host", "localhost"), extra) == ""


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
