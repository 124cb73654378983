"""The methods of one path, and CORS."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from api.edge.cors import ALLOWED_HEADERS, Cors
from api.edge.error_boundary import ErrorBoundary
from api.edge.method_dispatch import Resource


async def hello(request: Request) -> ASGIApp:
    return PlainTextResponse("hello", headers={"x-generation-id": "gen"})


@pytest.fixture
def client() -> TestClient:
    return TestClient(ErrorBoundary(Resource("/", GET=hello, POST=hello)))


def test_each_method_has_its_handler(client: TestClient) -> None:
    assert client.get("/").text == "hello"
    assert client.post("/").text == "hello"
    assert client.head("/").status_code == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "BREW"])
def test_another_method_is_405_with_all_allowed_methods(client: TestClient, method: str) -> None:
    response = client.request(method, "/")

    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD, POST"
    assert response.json()["error"]["code"] == "method_not_allowed"


def preflight(origin: str, headers: str, origins: tuple[str, ...] = ("https://a.example",)) -> Any:
    client = TestClient(Cors(ErrorBoundary(Resource("/", GET=hello)), origins))
    return client.options(
        "/",
        headers={
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": headers.encode(),
        },
    )


def test_a_preflight_allows_the_headers_of_clients() -> None:
    names = "authorization, content-type, last-event-id, idempotency-key"
    response = preflight("https://a.example", names + ", x-stainless-lang, X-Stainless-New-Thing")

    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://a.example"
    allowed = response.headers["access-control-allow-headers"].lower()
    for name in (*names.split(", "), "x-stainless-lang", "x-stainless-new-thing"):
        assert name in allowed


@pytest.mark.parametrize(
    ("origin", "headers"),
    [
        ("https://b.example", "authorization"),
        ("null", "authorization"),
    ],
)
def test_a_preflight_of_another_origin_is_refused(origin: str, headers: str) -> None:
    assert preflight(origin, headers).status_code == 400


@pytest.mark.parametrize(
    ("requested", "allowed"),
    [
        ("user-agent", "user-agent"),  # Firefox and Safari, when a client sets its own
        ("openai-organization, openai-project, OpenAI-Beta", None),
        ("x-title,http-referer", "x-title, http-referer"),
        ("traceparent, tracestate, baggage", None),
        ("x-other, x-other", "x-other"),
        ("authorization, cookie, sec-fetch-site, proxy-x", "authorization"),
        ("x-good, no token, é", "x-good"),
        ("host", ""),
    ],
)
def test_a_preflight_allows_every_header_that_a_page_may_set(
    requested: str, allowed: str | None
) -> None:
    response = preflight("https://a.example", requested)

    assert response.status_code == 200
    expected = requested.lower() if allowed is None else allowed
    names = response.headers["access-control-allow-headers"].split(", ")
    assert names[: len(ALLOWED_HEADERS)] == list(ALLOWED_HEADERS)
    others = [name for name in expected.replace(",", " ").split() if name not in ALLOWED_HEADERS]
    assert names[len(ALLOWED_HEADERS) :] == others


def test_only_a_listed_origin_may_read_an_answer() -> None:
    client = TestClient(Cors(ErrorBoundary(Resource("/", GET=hello)), ("https://a.example",)))
    mine = client.get("/", headers={"origin": "https://a.example"})
    other = client.get("/", headers={"origin": "https://b.example"})

    assert mine.headers["access-control-allow-origin"] == "https://a.example"
    assert "X-Generation-Id" in mine.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in other.headers


def test_a_listed_origin_may_also_read_errors() -> None:
    client = TestClient(Cors(ErrorBoundary(Resource("/", GET=hello)), ("*",)))
    response = client.post("/", headers={"origin": "https://any.example"})

    assert response.status_code == 405
    assert response.headers["access-control-allow-origin"] == "*"
