"""The places of an owner's readers on nodes with real sockets and a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from shared.config.settings import Settings
from shared.log.events import End, Token
from tests.support.local_node import LocalNode, ManualWorker, serve_here
from tests.support.tokens import SECRET, hmac_token
from tests.support.wait import until

END = End(status="completed", finish_reason="stop")
MOST = 2
MESSAGES = [{"role": "user", "content": "x"}]
PARTS = [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "x"}]}]
# Every POST that is answered from a log: path -> body and headers.
READING_PROMPTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "/v1/generations": ({"prompt": "x"}, {"accept": "text/event-stream"}),
    "/v1/chat/completions": ({"messages": MESSAGES, "stream": True}, {}),
    "/chat/completions": ({"messages": MESSAGES}, {}),
    "/v1/responses": ({"input": "x"}, {}),
    "/ai-sdk/chat": ({"messages": PARTS}, {}),
    "/deep-chat": ({"messages": [{"role": "user", "text": "x"}]}, {}),
}
READS = [
    ("/v1/generations/{id}/events", {"accept": "text/event-stream"}),
    ("/v1/generations/{id}/events", {"accept": "application/x-ndjson"}),
    ("/v1/generations/{id}/events?wait=9&last_event_id=1-2", {}),
    ("/v1/responses/{resp}?stream=true", {}),
    ("/ai-sdk/chat/{id}/stream?startIndex=0", {}),
]
SOCKETS = ["/v1/ws", "/v1/responses", "/ai-sdk/ws", "/deep-chat/ws", "/lobe/ws"]


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[LocalNode]:
    settings = Settings(redis_url=redis_url, jwt_secret=SECRET, owner_connections_max=MOST)
    async with serve_here(settings) as local_node:
        counting = asyncio.create_task(local_node.node.places.run())
        yield local_node
        counting.cancel()


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(10)
    async with aiohttp.ClientSession(timeout=timeout, headers=who("alice")) as session:
        yield session


def who(owner: str) -> dict[str, str]:
    return {"authorization": f"Bearer {hmac_token(sub=owner)}"}


@pytest.fixture
async def worker(node: LocalNode) -> ManualWorker:
    """A running generation of alice with one token."""
    worker = await ManualWorker.take(node.node.store, owner="alice")
    await worker.append(Token("Hi"))
    return worker


@contextlib.asynccontextmanager
async def readers(
    node: LocalNode, web: aiohttp.ClientSession, worker: ManualWorker, count: int = MOST
) -> AsyncIterator[list[aiohttp.ClientResponse]]:
    """Hold open streams of alice."""
    url = f"{node.url}/v1/generations/{worker.generation_id}/events"
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(web.get(url)) for _ in range(count)]


def filled(path: str, worker: ManualWorker) -> str:
    name = worker.generation_id
    return path.format(id=name, resp=name.replace("gen_", "resp_"))


@pytest.mark.parametrize(("path", "headers"), READS)
async def test_a_reader_over_the_limit_is_refused_and_let_in_when_another_has_left(
    node: LocalNode,
    web: aiohttp.ClientSession,
    worker: ManualWorker,
    path: str,
    headers: dict[str, str],
) -> None:
    url = node.url + filled(path, worker)
    async with readers(node, web, worker) as open_streams:
        async with web.get(url, headers=headers) as answer:
            text = await answer.text()
            assert answer.status == 429 and "too_many_connections" in text
            assert answer.headers["Retry-After"] == "5"
        async with web.get(url, headers={**headers, **who("bob")}) as answer:
            assert answer.status == 404, "the limit is of each owner"

        open_streams[0].close()
        await until(lambda: node.node.places.count("alice") == 1, 5, "the end of a reader")
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(status_of(web, url, headers))
            await until(lambda: node.node.places.count("alice") == 2, 5, "the new reader")
            await worker.append(END)
        assert reading.result() == 200
    await until(lambda: not node.node.places.count("alice"), 5, "the end of all readers")


async def status_of(web: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> int:
    async with web.get(url, headers=headers) as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize("path", READING_PROMPTS)
async def test_a_prompt_whose_answer_has_no_place_is_not_accepted(
    node: LocalNode, web: aiohttp.ClientSession, worker: ManualWorker, path: str
) -> None:
    body, headers = READING_PROMPTS[path]
    async with readers(node, web, worker):
        async with web.post(node.url + path, json=body, headers=headers) as answer:
            text = await answer.text()

    assert answer.status == 429
    if path == "/deep-chat":
        assert "readers of this owner" in text
    else:
        assert "too_many_connections" in text
    assert await node.node.redis.zcard("tr:{q}:waiting:interactive") == 0


async def test_a_prompt_whose_answer_is_not_read_needs_no_place(
    node: LocalNode, web: aiohttp.ClientSession, worker: ManualWorker
) -> None:
    async with readers(node, web, worker):
        async with web.post(f"{node.url}/v1/generations", json={"prompt": "x"}) as answer:
            assert answer.status == 202


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES, "model": "none"}),
        ("/v1/chat/completions", {"messages": 7}),
        ("/v1/generations", {"prompt": ""}),
    ],
)
async def test_a_refused_prompt_keeps_no_place(
    node: LocalNode, web: aiohttp.ClientSession, path: str, body: dict[str, Any]
) -> None:
    headers = {"accept": "text/event-stream"}
    async with web.post(node.url + path, json=body, headers=headers) as answer:
        assert answer.status in (400, 404, 422)

    assert node.node.places.count("alice") == 0


@pytest.mark.parametrize("path", SOCKETS)
async def test_sockets_take_places_too(
    node: LocalNode, web: aiohttp.ClientSession, worker: ManualWorker, path: str
) -> None:
    async with web.ws_connect(node.url + path), web.ws_connect(node.url + path):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await web.ws_connect(node.url + path)
        assert caught.value.status == 429
    await until(lambda: not node.node.places.count("alice"), 5, "the end of both")


async def test_a_page_reads_the_refusal_of_its_socket_in_a_frame_and_may_come_back(
    node: LocalNode, web: aiohttp.ClientSession, worker: ManualWorker
) -> None:
    async with readers(node, web, worker):
        async with web.ws_connect(f"{node.url}/v1/ws", headers={"origin": node.url}) as socket:
            frame = await socket.receive_json()
            assert (frame["code"], frame["retry_after_s"]) == ("too_many_connections", 5)
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 4029


async def test_a_socket_whose_first_frame_brings_credentials_takes_a_place(
    node: LocalNode, worker: ManualWorker
) -> None:
    auth = {"type": "auth", "token": hmac_token(sub="alice")}
    async with aiohttp.ClientSession() as web, contextlib.AsyncExitStack() as stack:
        for _ in range(MOST):
            socket = await stack.enter_async_context(web.ws_connect(f"{node.url}/v1/ws"))
            await socket.send_json(auth)
            await socket.send_json({"type": "ping"})
            assert (await socket.receive_json())["type"] == "pong"
        socket = await stack.enter_async_context(web.ws_connect(f"{node.url}/v1/ws"))
        await socket.send_json(auth)
        assert (await socket.receive_json())["code"] == "too_many_connections"
    await until(lambda: not node.node.places.count("alice"), 5, "the end of all")


async def test_an_event_source_gets_two_error_events_and_a_429_at_its_third_connect(
    node: LocalNode, web: aiohttp.ClientSession, worker: ManualWorker
) -> None:
    url = f"{node.url}/v1/generations/{worker.generation_id}/events"
    browser = {"accept": "text/event-stream", "sec-fetch-mode": "cors"}
    async with readers(node, web, worker):
        for _ in range(2):
            async with web.get(url, headers=browser) as answer:
                assert answer.status == 200
                block = await answer.content.readuntil(b"\n\n")
                assert block.startswith(b"retry: 5000\nevent: error\ndata: {")
                assert b'"code":"too_many_connections"' in block
                with pytest.raises(aiohttp.ClientError):
                    await answer.read()
        async with web.get(url, headers=browser) as answer:
            assert answer.status == 429


async def test_two_nodes_share_the_places_and_a_closed_reader_frees_the_place_of_the_other_node(
    redis_url: str, web: aiohttp.ClientSession
) -> None:
    settings = Settings(redis_url=redis_url, jwt_secret=SECRET, owner_connections_max=MOST)
    async with serve_here(settings, "n1") as one, serve_here(settings, "n2") as two:
        counting = [asyncio.create_task(each.node.places.run()) for each in (one, two)]
        worker = await ManualWorker.take(one.node.store, owner="alice")
        url = f"{two.url}/v1/generations/{worker.generation_id}/events?wait=0.01"
        async with readers(one, web, worker) as open_streams:
            async with web.get(url) as answer:
                assert answer.status == 429
            open_streams[0].close()

            async def is_let_in() -> bool:
                async with web.get(url) as answer:
                    return answer.status == 200

            await until(is_let_in, 5, "the place at the other node")
        for task in counting:
            task.cancel()


async def test_without_a_limit_no_record_of_readers_is_kept(
    redis_url: str, web: aiohttp.ClientSession
) -> None:
    async with serve_here(Settings(redis_url=redis_url, jwt_secret=SECRET)) as node:
        worker = await ManualWorker.take(node.node.store, owner="alice")
        async with readers(node, web, worker, 5):
            assert not await node.node.redis.keys("*:places")
