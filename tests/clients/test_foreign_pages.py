"""A hostile website in a real browser: its pages start nothing at a node and read no answer.

The node has no credentials and lists no origin, as `tailrace up` starts one on somebody's machine.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.browser import Browser, Page, PageServer
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient

EVIL, REBOUND = "evil.test", "rebind.test"
HERE = f"--host-resolver-rules=MAP {EVIL} 127.0.0.1, MAP {REBOUND} 127.0.0.1"
SOCKETS = ("/v1/ws", "/v1/responses", "/lobe/ws", "/ai-sdk/ws", "/deep-chat/ws")
MESSAGE = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "spend"}]}
CHAT = json.dumps({"id": "c", "messages": [MESSAGE]})
PROMPT = json.dumps({"prompt": "spend"})
TOOLS = """
window.send = (url, body, type, mode) =>
  fetch(url, {method: "POST", mode, body, headers: type ? {"Content-Type": type} : {}})
    .then((r) => r.type === "opaque" ? "opaque" : r.status, () => "refused");
window.listen = (url) => new Promise((resolve) => {
  const socket = new WebSocket(url);
  socket.onopen = () => resolve("open");
  socket.onerror = () => resolve("refused");
});
window.read = (url) => fetch(url).then((r) => r.text(), () => "refused");
window.form = () => {
  const form = new FormData();
  form.append("purpose", "user_data");
  form.append("file", new Blob(["spend"]), "a.txt");
  return form;
};
"""


@pytest.fixture(scope="module")
async def node() -> AsyncIterator[RawClient]:
    async with (
        Deployment(api=1, workers=1) as deployment,
        RawClient(deployment.urls[0]) as raw_client,
    ):
        await raw_client.start({"prompt": "a secret of mine"})
        yield raw_client


@pytest.fixture(scope="module")
async def lured() -> AsyncIterator[Browser]:
    """A browser for which the foreign names lead to this machine."""
    async with Browser(HERE) as browser:
        yield browser


@pytest.fixture
async def website(lured: Browser) -> AsyncIterator[Page]:
    async with PageServer() as pages:
        page = await lured.open(f"http://{EVIL}:{pages.port}/", first=TOOLS)
        yield page
        await page.close()


async def prompts(node: RawClient) -> list[Any]:
    return [one["prompt"] for one in (await node.get("/v1/generations")).json()["generations"]]


async def test_a_website_starts_nothing_and_uploads_nothing(node: RawClient, website: Page) -> None:
    bodies = {
        "/ai-sdk/chat": f"{CHAT!r}, 'text/plain'",
        "/v1/generations": f"{PROMPT!r}, 'text/plain'",
        "/deep-chat": "form(), ''",
        "/v1/files": "form(), ''",
    }
    for path, body in bodies.items():
        sent = await website.evaluate(f"send('{node.url}{path}', {body}, 'no-cors')")
        assert sent == "opaque", "the browser sends it without asking"
        sent = await website.evaluate(f"send('{node.url}{path}', {body}, 'cors')")
        assert sent == "refused", "and shows no answer"

    assert await prompts(node) == ["a secret of mine"]
    assert (await node.get("/v1/files")).json()["data"] == []


async def test_a_website_reads_nothing_and_listens_to_nothing(
    node: RawClient, website: Page
) -> None:
    assert await website.evaluate(f"read('{node.url}/v1/generations')") == "refused"
    for path in SOCKETS:
        url = node.url.replace("http", "ws") + path
        assert await website.evaluate(f"listen('{url}')") == "refused"


async def test_a_website_whose_name_resolves_to_this_node_gets_nothing(
    node: RawClient, lured: Browser
) -> None:
    """To the browser the node is that website's own server."""
    own = node.url.replace("127.0.0.1", REBOUND)
    page = await lured.open(f"{own}/", first=TOOLS)

    assert await page.evaluate("location.origin") == own
    assert "TAILRACE_HOSTS" in await page.evaluate("document.body.innerText")
    said = await page.evaluate("read('/v1/generations')")
    assert "forbidden" in said and "secret" not in said
    assert await page.evaluate(f"send('/v1/generations', {PROMPT!r}, 'application/json')") == 403
    for path in SOCKETS:
        assert await page.evaluate(f"listen('{own.replace('http', 'ws')}{path}')") == "refused"
    await page.close()
    assert await prompts(node) == ["a secret of mine"]


async def test_the_nodes_own_page_may_do_all_of_this(node: RawClient, lured: Browser) -> None:
    """So that the tests above look for something that a page can do."""
    page = await lured.open(f"{node.url}/docs", first=TOOLS)

    assert "a secret" in await page.evaluate("read('/v1/generations')")
    for path in SOCKETS:
        url = node.url.replace("http", "ws") + path
        assert await page.evaluate(f"listen('{url}')") == "open"
    body = json.dumps({"prompt": "mine, too"})
    assert await page.evaluate(f"send('/v1/generations', {body!r}, 'application/json')") == 202
    await page.close()
