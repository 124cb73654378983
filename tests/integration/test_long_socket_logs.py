"""A WebSocket reader that catches up with a long log follows it to its end."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.asyncio.client import ClientConnection, connect

from shared.config.settings import Settings
from shared.log.events import End, Token
from tests.support.local_node import LocalNode, ManualWorker, serve_here
from tests.support.wait import until

LONG = 25  # appends of a hundred tokens: more than an encoded log folds in one call
END = End(status="completed", finish_reason="stop")


async def long_answer(local: LocalNode) -> ManualWorker:
    worker = await ManualWorker.take(local.node.store)
    for _ in range(LONG):
        await worker.append(*[Token("x ")] * 100)
    return worker


async def follow(socket: ClientConnection, generation_id: str, cursor: str = "") -> None:
    """Subscribe, and read until the reader has caught up."""
    place = {"last_event_id": cursor} if cursor else {}
    await socket.send(json.dumps({"type": "subscribe", "id": generation_id, **place}))
    while json.loads(await socket.recv())["type"] != "caught_up":
        pass


async def types_to_the_end(socket: ClientConnection) -> list[str]:
    seen: list[str] = []
    async with asyncio.timeout(5):
        while not seen or seen[-1] != "end":
            seen.append(json.loads(await socket.recv())["type"])
    return seen


@pytest.mark.parametrize("is_trimmed", [False, True])
async def test_an_end_right_after_a_long_catch_up_arrives(redis_url: str, is_trimmed: bool) -> None:
    async with serve_here(Settings(redis_url=redis_url)) as local, asyncio.timeout(20):
        worker = await long_answer(local)
        url = local.url.replace("http", "ws") + "/v1/ws"
        async with connect(url, proxy=None) as first, connect(url, proxy=None) as socket:
            cursor = ""
            if is_trimmed:  # the copy has lost its entries, and the encoded log never had them
                await follow(first, worker.generation_id)
                await first.close()
                relay = local.hub.relays[worker.generation_id]
                await until(lambda: not relay.readers, 5, "the first reader has left")
                relay.trim()
                await worker.append(Token("y"))
                relay.trim()
                cursor = f"1-{worker.seq}"
            await follow(socket, worker.generation_id, cursor)
            await worker.append(Token("last"), END)

            assert await types_to_the_end(socket) == ["token", "end"]
