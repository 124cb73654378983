"""How the readers of one client share the opening of a socket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

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
