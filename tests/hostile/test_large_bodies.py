"""Many large bodies and frames at once, complete or not: the node's memory stays within its budget,
and small requests are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from functools import partial

import pytest

from tests.hostile.conftest import QUICK, OwnDeployment
from tests.support.footprint import MB, rss_bytes
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient, hear
from tests.support.raw_wire import handshake, large_frame, raw_connection
from tests.support.wait import until

BODY_BYTES_MAX, BODIES_BYTES_MAX = 4_000_000, 16_000_000
BODIES, SOCKETS = 100, 100
PART = b"x" * (BODY_BYTES_MAX - 100_000)  # of a body that never becomes complete
# The budget, 64 KiB of each that are not counted, a read buffer for each, and what the allocator
# keeps. Without a budget the bodies take 390 MB, and so do the frames.
GROWTH_MAX = BODIES_BYTES_MAX + SOCKETS * 300_000 + 30 * MB
HEAD = (
    b"POST /v1/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % BODY_BYTES_MAX
)
SMALL = {"prompt": "x", "params": {"demo": {"tokens": 1}}}
LARGE = {**SMALL, "messages": [{"role": "user", "content": "x" * 3_000_000}]}
del LARGE["prompt"]


@pytest.fixture(scope="module")
async def tight(own_deployment: OwnDeployment) -> AsyncIterator[Deployment]:
    settings = {
        "body_bytes_max": str(BODY_BYTES_MAX),
        "bodies_bytes_max": str(BODIES_BYTES_MAX),
        "heartbeat_s": "15",
    }
    async with own_deployment(api=1, workers=1, models=QUICK, settings=settings) as deployment:
        async with RawClient(deployment.urls[0]) as api:
            await api.post(SMALL)  # loads what is loaded late
            await api.post(LARGE)
        yield deployment


@pytest.fixture
async def api(tight: Deployment) -> AsyncIterator[RawClient]:
    async with RawClient(tight.urls[0]) as api:
        await until(partial(is_empty, api), 20, "the room is empty")
        yield api


async def held_bytes(api: RawClient) -> int:
    found = re.search(
        r"^tailrace_bodies_bytes (\S+)$", (await api.get("/metrics")).body.decode(), re.M
    )
    assert found is not None
    return int(float(found[1]))


async def is_empty(api: RawClient) -> bool:
    return await held_bytes(api) == 0


async def holds_more_than(api: RawClient, count: int) -> bool:
    return await held_bytes(api) > count


async def is_full(api: RawClient) -> bool:
    return await held_bytes(api) == 3 * (len(PART) - 65_536)


async def begin_body(url: str, stack: contextlib.AsyncExitStack) -> None:
    """Send most of a body, and keep the connection."""
    _, writer = await stack.enter_async_context(raw_connection(url))
    writer.write(HEAD + PART)
    with contextlib.suppress(ConnectionError):  # the node may refuse it before its end
        await writer.drain()


async def test_bodies_that_do_not_end_take_the_budget_and_no_more(
    tight: Deployment, api: RawClient
) -> None:
    pid = tight.api[0].pid
    before = rss_bytes(pid)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):  # all but the reserve; then each further one is refused
            await begin_body(api.url, stack)
        await until(partial(is_full, api), 20, "three bodies have arrived")
        await asyncio.gather(*(begin_body(api.url, stack) for _ in range(BODIES)))
        small, large = await api.post(SMALL), await api.post(LARGE)
        held, grown = await held_bytes(api), rss_bytes(pid) - before

    assert small.status == 202
    assert (large.status, large.error_code) == (503, "bodies_full")
    assert large.headers["retry-after"] == "1"
    assert 0 < held <= BODIES_BYTES_MAX
    assert grown < GROWTH_MAX
    await until(partial(is_empty, api), 20, "clients that have left hold nothing")
    assert (await api.post(LARGE)).status == 202


async def test_frames_that_do_not_end_take_the_budget_and_no_more(
    tight: Deployment, api: RawClient
) -> None:
    pid = tight.api[0].pid
    before = rss_bytes(pid)
    head = large_frame(PART, announced=BODY_BYTES_MAX)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(SOCKETS):
            reader, writer = await stack.enter_async_context(raw_connection(api.url))
            writer.write(handshake(api.url))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            await writer.drain()
        assert (await api.post(SMALL)).status == 202
        held, grown = await held_bytes(api), rss_bytes(pid) - before

    assert 0 < held <= BODIES_BYTES_MAX
    assert grown < GROWTH_MAX
    await until(partial(is_empty, api), 20, "sockets that are gone hold nothing")


async def test_a_deep_chat_socket_holds_frames_that_wait_and_gives_them_back(
    tight: Deployment, api: RawClient
) -> None:
    messages = [{"role": "user", "text": "x" * 1_500_000}]
    slow = {"demo": {"tokens": 100_000, "tokens_per_s": 20}}
    first, second = ({"messages": messages, "params": params} for params in (slow, {}))
    async with api.socket(path="/deep-chat/ws", subprotocols=None) as ws:
        await ws.send(json.dumps(first))
        await ws.recv()
        assert await held_bytes(api) == 0  # the first is accepted
        await ws.send(json.dumps(second))
        await until(partial(holds_more_than, api, 1_400_000), 20, "the second waits")

    await until(partial(is_empty, api), 20, "a socket that is gone holds nothing")


async def test_a_responses_socket_holds_frames_that_wait_and_gives_them_back(
    tight: Deployment, api: RawClient
) -> None:
    create = {"type": "response.create", "input": "x" * 1_500_000}
    slow = {"demo": {"tokens": 100_000, "tokens_per_s": 20}}
    async with api.socket(path="/v1/responses", subprotocols=None) as ws:
        await ws.send(json.dumps(create | slow))
        await ws.recv()
        assert await held_bytes(api) == 0  # the first is accepted
        await ws.send(json.dumps(create))
        await until(partial(holds_more_than, api, 1_400_000), 20, "the second waits")

    await until(partial(is_empty, api), 20, "a socket that is gone holds nothing")


async def test_a_hundred_sockets_with_large_frames_are_answered_and_live(
    tight: Deployment, api: RawClient
) -> None:
    """Three kinds of frames: too large, without room, and accepted."""
    pid = tight.api[0].pid
    before = rss_bytes(pid)
    codes: set[str] = set()

    async def one(size: int) -> None:
        async with api.socket() as ws:
            await ws.send('{"type":"nothing","more":"' + "x" * size + '"}')
            codes.add((await hear(ws))["code"])
            await ws.send('{"type":"ping"}')
            assert await hear(ws) == {"type": "pong"}

    sizes = (BODY_BYTES_MAX, BODY_BYTES_MAX - 100_000)
    await asyncio.gather(*(one(sizes[number % 2]) for number in range(SOCKETS)))

    assert {"body_too_large", "invalid_request"} <= codes
    assert codes <= {"body_too_large", "invalid_request", "bodies_full"}
    assert rss_bytes(pid) - before < GROWTH_MAX
    await until(partial(is_empty, api), 20, "served frames hold nothing")
