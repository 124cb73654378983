"""The other HTTP routes: sessions, models, probes, metrics, documents; and malformed requests."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from tests.support.demo import demo_body
from tests.support.raw_client import RawClient
from tests.support.raw_wire import exchange, raw_connection

SHORT = demo_body(2, 0)
LONG = demo_body(10_000, 20)


async def test_a_session_lists_its_generations_newest_first_with_the_active_ones(api: RawClient):
    name = f"s-{uuid.uuid4().hex}"
    ids = [await api.finished(SHORT | {"session": name}) for _ in range(3)]
    active = await api.start(LONG | {"session": name})

    body = (await api.get(f"/v1/sessions/{name}", node=api.other_url)).json()
    await api.call("POST", f"/v1/generations/{active}/cancel")

    assert [g["id"] for g in body["generations"]] == [active, *reversed(ids)]
    assert body["active"] == [active]


async def test_a_session_name_may_have_any_characters(api: RawClient):
    generation_id = await api.start(SHORT | {"session": "ü ?#/x"})

    body = (await api.get("/v1/sessions/%C3%BC%20%3F%23%2Fx")).json()

    assert generation_id in [g["id"] for g in body["generations"]]


async def test_a_session_nobody_used_is_empty_or_404(api: RawClient):
    answer = await api.get(f"/v1/sessions/{uuid.uuid4().hex}")

    assert answer.status in (200, 404)


async def test_a_page_of_a_session_has_at_most_100(api: RawClient):
    """A page ends between two milliseconds, so it may have some fewer than 100."""
    name = f"s-{uuid.uuid4().hex}"
    for _ in range(105):
        await api.start(demo_body(1, 0) | {"session": name})

    first = (await api.get(f"/v1/sessions/{name}")).json()
    second = (await api.get(f"/v1/sessions/{name}?before={first['next_before']}")).json()

    sizes = [len(page["generations"]) for page in (first, second)]
    assert 80 < sizes[0] <= 100 and sum(sizes) == 105
    assert len({item["id"] for page in (first, second) for item in page["generations"]}) == 105
    assert second["next_before"] is None


async def test_the_models_are_listed(api: RawClient):
    body = (await api.get("/v1/models")).json()

    assert "demo" in [model["id"] for model in body["data"]]


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_the_probes_are_200_without_credentials(api: RawClient, path):
    assert (await api.get(path, anonymous=True)).status == 200


async def test_the_metrics_are_prometheus(api: RawClient):
    answer = await api.get("/metrics")

    if api.key and answer.status == 403:  # the key is an ordinary one
        assert answer.error_code == "forbidden"
        return
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert b"# TYPE" in answer.body
    assert b"# HELP" in answer.body


async def test_the_openapi_document_names_the_endpoints(api: RawClient):
    document = (await api.get("/openapi.json")).json()

    assert document["openapi"].startswith("3.")
    for path in (
        "/v1/generations",
        "/v1/generations/{id}",
        "/v1/generations/{id}/cancel",
        "/v1/generations/{id}/events",
        "/v1/sessions/{session}",
        "/v1/models",
    ):
        assert path in document["paths"]


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_the_pages_are_html_and_need_no_credentials(api: RawClient, path):
    answer = await api.get(path, anonymous=True, headers={"Accept": "text/html"})

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/generations/a/b/c", "/v1/../etc/passwd"])
async def test_an_unknown_path_is_a_404_with_an_error(api: RawClient, path):
    answer = await api.get(path)

    assert (answer.status, answer.error_code) == (404, "not_found")


async def test_an_error_is_json(api: RawClient):
    answer = await api.get("/v1/generations/gen_nothing")

    assert answer.headers["Content-Type"].startswith("application/json")
    assert json.loads(answer.body)["error"]["retryable"] is False


async def test_a_request_head_that_is_not_complete_after_10_s_is_closed(api: RawClient):
    async with raw_connection(api.url) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        async with asyncio.timeout(14):
            received = await reader.read(-1)

    assert b" 200 " not in received


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/generations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    ],
    ids=["binary", "version", "length", "smuggling", "long line", "many headers"],
)
async def test_broken_http_is_refused_and_the_node_lives(api: RawClient, request_bytes):
    received = await exchange(api.url, request_bytes, within_s=3)

    assert not received.startswith((b"HTTP/1.1 500", b"HTTP/1.1 503"))
    assert (await api.get("/livez")).status == 200
