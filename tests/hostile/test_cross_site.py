"""A page of another origin starts, uploads, ends and reads nothing at a node.

A browser lets a page of any origin send simple POST requests and open sockets; CORS only keeps the
answers from the page. The tests send the requests of such a page to each unsafe route. They take
the routes from the router, so that they also try a new route.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from unittest.mock import MagicMock

import pytest
import websockets

from api.app import http_routes, socket_routes
from shared.config.settings import Settings
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.raw_wire import exchange

SAFE = {"GET", "HEAD", "OPTIONS"}
FOREIGN, LISTED = "https://evil.example", "https://app.example"
UNSAFE = [
    (method, re.sub(r"\{.*?\}", "gen_12345678", route.path))
    for route in http_routes(MagicMock(settings=Settings()))
    for method in sorted(set(route.endpoint.methods) - SAFE)
]
SOCKETS = [route.path for route in socket_routes(MagicMock(settings=Settings()))]
# What a browser says of a page that has no business here.
STRANGERS = {
    "a foreign origin": {"Origin": FOREIGN},
    "a foreign origin that says where from": {"Origin": FOREIGN, "Sec-Fetch-Site": "cross-site"},
    "no origin to speak of": {"Origin": "null"},
    "from elsewhere, without an origin": {"Sec-Fetch-Site": "cross-site"},
    "from a sibling, without an origin": {"Sec-Fetch-Site": "same-site"},
    "the node's name at another port": {"Origin": "http://127.0.0.1:1"},
}
TEXT = {"Content-Type": "text/plain"}


def test_there_are_unsafe_routes() -> None:
    assert len(UNSAFE) > 12
    assert len(SOCKETS) == 7


@pytest.mark.parametrize(("method", "path"), UNSAFE)
async def test_a_foreign_origin_is_refused(api: RawClient, method: str, path: str) -> None:
    simple = {"a foreign origin that need not ask": {"Origin": FOREIGN, **TEXT}}
    for who, headers in {**STRANGERS, **simple}.items():
        answer = await api.call(method, path, headers=headers, raw=b"{}")

        assert answer.status == 403, (who, answer.body)
        assert b"TAILRACE_CORS_ORIGINS" in answer.body, "in whatever shape, the same words"


async def test_unknown_methods_and_paths_do_not_bypass_the_refusal(api: RawClient) -> None:
    for who, headers in STRANGERS.items():
        for method in ("PUT", "PATCH", "PURGE"):
            for path in ("/v1/generations", "/nowhere"):
                assert (await api.call(method, path, headers=headers)).status == 403, who


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_foreign_origin_opens_no_socket(api: RawClient, path: str) -> None:
    for who, headers in STRANGERS.items():
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with api.socket(path=path, additional_headers=headers):
                pass

        assert refused.value.response.status_code == 403, who


@pytest.mark.parametrize(("method", "path"), UNSAFE)
async def test_own_pages_and_programs_are_served(api: RawClient, method: str, path: str) -> None:
    for headers in (
        {},
        {"Origin": api.url},
        {"Origin": api.url, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ):
        answer = await api.call(method, path, headers=headers)

        assert answer.status not in (403, 500), answer.body


async def test_a_request_of_a_foreign_origin_starts_nothing(api: RawClient) -> None:
    session = uuid.uuid4().hex
    prompt = f'{{"session":"{session}","prompt":"x","params":{{"demo":{{"tokens":1}}}}}}'.encode()
    chat = (
        b'{"id":"c","session":"%b","messages":[{"id":"1","role":"user",'
        b'"parts":[{"type":"text","text":"x"}]}]}' % session.encode()
    )
    for headers in STRANGERS.values():
        for path, body in (("/v1/generations", prompt), ("/ai-sdk/chat", chat)):
            answer = await api.call("POST", path, headers={**headers, **TEXT}, raw=body)
            assert answer.status == 403

    assert (await api.get(f"/v1/sessions/{session}")).json()["generations"] == []


async def test_a_foreign_origin_ends_nothing(api: RawClient) -> None:
    body = {"prompt": "x", "params": {"demo": {"tokens": 100_000, "tokens_per_s": 5}}}
    generation_id = await api.start(body)
    path = f"/v1/generations/{generation_id}/cancel"
    try:
        for headers in STRANGERS.values():
            assert (await api.call("POST", path, headers=headers)).status == 403
        found = (await api.get(f"/v1/generations/{generation_id}")).json()
        assert found["status"] in ("queued", "running")
    finally:
        await api.call("POST", path)


async def test_a_foreign_origin_is_refused_before_its_body_is_read(api: RawClient) -> None:
    """Nothing of it is ever sent, and the answer comes all the same."""
    host = api.url.partition("://")[2]
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: {host}\r\nOrigin: {FOREIGN}\r\nConnection: close\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000000\r\n\r\n"
    )

    assert (await exchange(api.url, head.encode(), within_s=5)).startswith(b"HTTP/1.1 403 ")


# Origins that the operator lists


@pytest.fixture(scope="module")
async def listing(own_deployment: type[Deployment]) -> AsyncIterator[RawClient]:
    async with (
        own_deployment(api=1, workers=1, settings={"cors_origins": LISTED}) as deployment,
        RawClient(deployment.urls[0]) as raw_client,
    ):
        yield raw_client


# The console's actions are for its own page.
LISTED_MAY = [(method, path) for method, path in UNSAFE if not path.startswith("/v1/console")]


@pytest.mark.parametrize(("method", "path"), LISTED_MAY)
async def test_a_listed_origin_is_served(listing: RawClient, method: str, path: str) -> None:
    for headers in ({"Origin": LISTED}, {"Origin": LISTED, "Sec-Fetch-Site": "cross-site"}):
        answer = await listing.call(method, path, headers=headers)

        assert answer.status not in (403, 500), answer.body
        assert answer.headers["Access-Control-Allow-Origin"] == LISTED
    asks = {"Origin": LISTED, "Access-Control-Request-Method": method}
    assert (await listing.call("OPTIONS", path, headers=asks)).status == 200


@pytest.mark.parametrize(("method", "path"), UNSAFE)
async def test_a_list_of_origins_admits_no_other_origin(
    listing: RawClient, method: str, path: str
) -> None:
    for who, headers in STRANGERS.items():
        answer = await listing.call(method, path, headers=headers)

        assert answer.status == 403, who
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_listed_origin_opens_sockets(listing: RawClient, path: str) -> None:
    headers = {"Origin": LISTED, "Sec-Fetch-Site": "cross-site"}
    async with listing.socket(path=path, additional_headers=headers):
        pass
