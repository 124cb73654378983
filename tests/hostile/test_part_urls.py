"""URLs in prompts: in no dialect is a model server handed one that is not listed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.config.settings import Settings
from tests.support.local_node import LocalNode, serve_here
from tests.support.raw_client import RawClient, hear, tell
from tests.support.redis_server import RedisServer

LISTED = "https://images.example.org/a.png"
INSIDE = "http://169.254.169.254/latest/meta-data"
PIXEL = "data:image/png;base64,iVBORw0KGgo="
PART = {"type": "text", "text": "what is at http://169.254.169.254/ ?"}
MESSAGE = {"role": "user", "content": "see http://169.254.169.254/"}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def said(*parts: Any) -> list[dict[str, Any]]:
    return [MESSAGE, MESSAGE, {"role": "user", "content": [PART, *parts]}]


# By route: a body with this URL in it, and where it stands in what a model server would be given.
BODIES: dict[str, tuple[str, Any, str]] = {
    "native": (
        "/v1/generations", lambda url: {"messages": said(image(url))}, "messages[2].content[1]",
    ),
    "params": (
        "/v1/generations", lambda url: {"prompt": "x", "params": {"extra": {"logo": url}}},
        "params.extra.logo",
    ),
    "chat": (
        "/v1/chat/completions", lambda url: {"messages": said(image(url))},
        "messages[2].content[1]",
    ),
    "chat, audio": (
        "/v1/chat/completions",
        lambda url: {"messages": said({"type": "input_audio", "input_audio": {"url": url}})},
        "messages[2].content[1]",
    ),
    "chat, a member beside the content": (
        "/v1/chat/completions", lambda url: {"messages": [{**MESSAGE, "images": [url]}]},
        "messages[0].images[0]",
    ),
    "chat, a parameter": (
        "/v1/chat/completions", lambda url: {"messages": [MESSAGE], "base_url": url}, "base_url",
    ),
    "responses, image": (
        "/v1/responses",
        lambda url: {"input": [{"role": "user", "content": [
            {"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": url}]}]},
        "messages[0].content[1]",
    ),
    "responses, file": (
        "/v1/responses",
        lambda url: {"input": [{"role": "user", "content": [
            {"type": "input_file", "filename": "a", "file_data": url}]}]},
        "messages[0].content[0]",
    ),
    "deep-chat": (
        "/deep-chat",
        lambda url: {"messages": [{"role": "user", "text": "x",
                                   "files": [{"type": "image", "src": url}]}]},
        "messages[0].content[1]",
    ),
    "ai-sdk, image": (
        "/ai-sdk/chat",
        lambda url: {"id": "c", "messages": [{"id": "m", "role": "user", "parts": [
            {"type": "text", "text": "x"},
            {"type": "file", "mediaType": "image/png", "url": url}]}]},
        "messages[0].content[1]",
    ),
    "ai-sdk, file": (
        "/ai-sdk/chat",
        lambda url: {"id": "c", "messages": [{"id": "m", "role": "user", "parts": [
            {"type": "file", "mediaType": "application/pdf", "url": url}]}]},
        "messages[0].content[0]",
    ),
    "ag-ui": (
        "/ag-ui/demo",
        lambda url: {"threadId": "t", "runId": str(url), "messages": [{"role": "user", "content": [
            {"type": "text", "text": "x"},
            {"type": "image", "source": {"type": "url", "value": url}}]}]},
        "messages[0].content[1]",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
async def local_node(redis_server: RedisServer) -> AsyncIterator[LocalNode]:
    settings = Settings(redis_url=redis_server.url, part_urls="images.example.org,*.cdn.example")
    async with serve_here(settings) as local_node:
        yield local_node


@pytest.fixture
async def node_api(local_node: LocalNode) -> AsyncIterator[RawClient]:
    async with RawClient(local_node.url) as raw_client:
        yield raw_client


@pytest.mark.parametrize("name", BODIES)
async def test_no_dialect_passes_on_a_url_that_is_not_listed(
    node_api: RawClient, name: str
) -> None:
    path, body, where = BODIES[name]

    answer = await node_api.call("POST", path, body=body(INSIDE))

    is_openai = name.startswith(("chat", "responses"))
    assert answer.status == (400 if is_openai else 422), answer.body
    assert where in answer.body.decode()
    assert "169.254" not in answer.body.decode()


@pytest.mark.parametrize("url", [LISTED, PIXEL, "http://a.b.cdn.example:8080/x?y=z"])
async def test_a_listed_url_reaches_the_model(node_api: RawClient, url: str) -> None:
    body = {"messages": said(image(url)), "params": {"logo": url, "stop": ["http://"]}}

    assert (await node_api.post(body)).status == 202


async def test_a_socket_checks_urls_against_the_list(node_api: RawClient) -> None:
    async with node_api.socket() as socket:
        await tell(socket, type="start", ref="r", messages=said(image(INSIDE)))
        error = await hear(socket)

    assert error["type"] == "error" and "messages[2].content[1]" in json.dumps(error)


async def test_a_schedule_with_an_unlisted_url_is_refused_at_its_creation(
    node_api: RawClient,
) -> None:
    body = {"messages": said(image(INSIDE)), "cron": "0 0 1 1 *"}

    assert (await node_api.post(body)).status == 422
