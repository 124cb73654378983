"""permessage-deflate with the WebSockets of browsers, Node.js and Python, over /v1/ws."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from websockets.asyncio.client import connect

from tests.support.browser import Browser, PageServer
from tests.support.npm import CLIENTS, installed, tool
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.upstream import Upstream, expected_text, script_of

MODEL = '[models.slow]\nbackend = "openai"\nbase_url = "{url}"\non_takeover = "continue"\n'
PROMPT = "告诉我 a story"
SCRIPT = {"tokens": 150, "delay_s": 0.02}
TEXT = expected_text(PROMPT, script_of({"messages": [], "upstream": SCRIPT}))
BODY = {"prompt": PROMPT, "model": "slow", "params": {"upstream": SCRIPT}}
ANSWER = "permessage-deflate; client_no_context_takeover"
# Replies to the pings are plain, and stand between compressed frames.
READ = """new Promise((resolve, reject) => {
  const socket = new WebSocket("%s", "tailrace.v1");
  const seen = {text: "", pongs: 0};
  const say = (frame) => socket.send(JSON.stringify(frame));
  socket.onopen = () => {
    seen.extensions = socket.extensions;
    say({type: "ping", pad: "padding ".repeat(20000)});
    say({type: "start", ...%s});
  };
  socket.onmessage = ({data}) => {
    const event = JSON.parse(data);
    if (event.type === "pong") seen.pongs += 1;
    else if (event.type !== "end") say({type: "ping"});
    if (event.type === "token") seen.text += event.text;
    if (event.type === "end") { socket.close(); resolve(seen); }
  };
  socket.onclose = ({code}) => reject(new Error("closed with " + code));
})"""


@pytest.fixture(scope="module")
async def deflating(upstream: Upstream, pages: PageServer) -> AsyncIterator[Deployment]:
    # Clients of Node.js inflate in a pool of threads, and pongs wait behind that.
    settings = {"ws_deflate": "on", "cors_origins": pages.origin, "heartbeat_s": "15"}
    models = MODEL.format(url=upstream.base_url)
    async with Deployment(api=1, workers=1, models=models, settings=settings) as deployment:
        yield deployment


@pytest.fixture
async def generation_id(deflating: Deployment) -> str:
    async with RawClient(*deflating.urls) as client:
        return await client.start(BODY)


def address(deployment: Deployment) -> str:
    return deployment.urls[0].replace("http", "ws") + "/v1/ws"


@pytest.mark.parametrize("is_firefox", [False, True], ids=["chromium", "firefox"])
async def test_a_browser_reads_compressed_and_plain_messages_in_turn(
    deflating: Deployment, pages: PageServer, is_firefox: bool
) -> None:
    async with Browser(is_firefox=is_firefox, within_s=60) as browser:
        page = await browser.open(pages.origin + "/")
        seen = await page.evaluate(READ % (address(deflating), json.dumps(BODY)))

    assert seen["text"] == TEXT
    assert seen["extensions"] == ("permessage-deflate" if is_firefox else ANSWER)
    assert seen["pongs"] > 20


async def test_the_clients_of_node_read_compressed_messages(deflating: Deployment) -> None:
    installed()
    program = CLIENTS / "websocket-deflate.mjs"
    process = await asyncio.create_subprocess_exec(
        tool("node"), str(program), deflating.urls[0], json.dumps(BODY),
        cwd=CLIENTS, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    found = json.loads(output)
    refusing = found.pop("ws, wants its context")
    extensions = {name: seen["extensions"] for name, seen in found.items()}

    ends = {name: (seen["code"], seen["error"]) for name, seen in found.items()}
    assert ends == dict.fromkeys(found, (1000, ""))
    assert {name: seen["text"] for name, seen in found.items()} == dict.fromkeys(found, TEXT)
    assert min(seen["pongs"] for seen in found.values()) > 20
    assert extensions.pop("ws, plain") == ""
    assert all(offered.startswith("permessage-deflate") for offered in extensions.values())
    # This option of ws means: rather no connection than a client without a context.
    assert "Sec-WebSocket-Extensions" in refusing["error"]


@pytest.mark.parametrize("client", ["websockets", "aiohttp", "aiohttp, narrow"])
async def test_the_clients_of_python_read_compressed_messages(
    deflating: Deployment, generation_id: str, client: str
) -> None:
    text = ""
    subscribe = json.dumps({"type": "subscribe", "id": generation_id})
    async with asyncio.timeout(30):
        if client == "websockets":
            async with connect(address(deflating), proxy=None) as socket:
                assert socket.response is not None
                assert socket.response.headers["Sec-WebSocket-Extensions"] == ANSWER
                await socket.send(subscribe)
                async for message in socket:
                    event = json.loads(message)
                    text += event.get("text", "")
                    if event["type"] == "end":
                        break
        else:
            bits = 15 if client == "aiohttp" else 10
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(address(deflating), compress=bits) as theirs,
            ):
                assert theirs.compress
                await theirs.send_str(subscribe)
                async for received in theirs:
                    event = received.json()
                    text += event.get("text", "")
                    if event["type"] == "end":
                        break

    assert text == TEXT
