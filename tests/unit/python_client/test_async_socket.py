"""How the readers of one client share sockets, and what a slow consumer of one costs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tailrace_client import AsyncTailrace, TailraceError, async_socket

READERS = 20


async def test_readers_share_one_try_to_open_a_socket_and_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries: list[str] = []
    answer = asyncio.Event()

    async def connect(url: str, **_: Any) -> None:
        tries.append(url)
        await answer.wait()
        raise OSError("refused")

    monkeypatch.setattr(async_socket, "connect", connect)
    url = "http://127.0.0.1:9"
    async with AsyncTailrace(url, transport="websocket", give_up_s=0, random=lambda: 0.0) as client:
        waiting = [asyncio.create_task(client.attach(f"gen_{n}").result()) for n in range(READERS)]
        leaving = waiting.pop()
        for _ in range(5):
            await asyncio.sleep(0)
        leaving.cancel()
        answer.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)

    assert all(isinstance(each, TailraceError) and each.retryable for each in outcomes)
    # With a limit of 0 s each reader has one further try.
    assert len(tries) <= 3
    assert leaving.cancelled()


async def test_a_slow_consumer_keeps_few_events_and_comes_back_for_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count, places_max = 400, 50
    monkeypatch.setattr(async_socket, "INBOX_EVENTS_MAX", places_max)
    cursors: list[str] = []
    all_sent = asyncio.Event()

    async def node(socket: ServerConnection) -> None:
        async for text in socket:
            frame = json.loads(text)
            if frame["type"] != "subscribe":
                continue
            cursors.append(frame.get("last_event_id", "1-0"))
            first = int(cursors[-1].removeprefix("1-")) + 1
            for n in range(first, count + 1):
                kind = {"type": "end", "status": "completed"} if n == count else {"type": "token"}
                told = {"id": frame["id"], "event_id": f"1-{n}", "text": f"{n} ", **kind}
                await socket.send(json.dumps(told))
            all_sent.set()

    async with (
        serve(node, "127.0.0.1", 0, subprotocols=["tailrace.v1"]) as server,  # type: ignore[list-item]
        AsyncTailrace(
            f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            transport="websocket",
            random=lambda: 0.0,
        ) as client,
    ):
        answer = client.attach("gen_slow")
        found = [await anext(answer)]
        await all_sent.wait()
        found += [event async for event in answer]

    assert [event.id for event in found] == [f"1-{n}" for n in range(1, count + 1)]
    # The consumer had taken one event when the others arrived, and so many were kept for it.
    assert cursors[0] == "1-0"
    assert 1 <= int(cursors[1].removeprefix("1-")) <= places_max + 1
