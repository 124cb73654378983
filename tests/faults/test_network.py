"""Connections that break at the worst byte: mid-request, mid-reply, after the request arrived.

A proxy stands between one process and Redis, or between a client and a node. Rows 5, 11 and 16 of
the fault table.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import aiohttp
import pytest

from shared.redis import keys
from shared.redis.client import REDIS_ANSWER_S
from tests.support.client import Client
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun
from tests.support.processes import Deployment, Role
from tests.support.proxy import Direction, Proxy
from tests.support.upstream import Upstream, script_of
from tests.support.upstream import expected_text as upstream_text
from tests.support.wait import until

LEASE_S = 0.8
OUTAGE_S = 1.5
MODELS = """
[models.demo]
backend = "demo"
on_takeover = "continue"

[models.upstream]
backend = "openai"
base_url = "{url}"
on_takeover = "continue"
"""


def starts(answer) -> int:
    return [entry.type for entry in answer.record.log].count("start")


@pytest.fixture(scope="module")
async def shared(upstream: Upstream) -> AsyncIterator[tuple[Deployment, Proxy]]:
    """Two nodes at Redis itself, and a proxy before Redis for the workers of the tests."""
    async with Deployment(
        api=2, workers=0, lease_s=LEASE_S, models=MODELS.format(url=upstream.base_url),
        is_waiting_for_workers=False,
    ) as deployment, Proxy("127.0.0.1", deployment.server.port) as proxy:  # fmt: skip
        yield deployment, proxy
        deployment.close()  # the roles first: they would see the proxy go


@pytest.fixture
async def proxied(shared: tuple[Deployment, Proxy]) -> AsyncIterator[tuple[Deployment, Proxy]]:
    """The same without any worker: each test adds its own."""
    deployment, proxy = shared
    yield deployment, proxy
    proxy.flow()
    for worker in deployment.workers:
        worker.kill()
    deployment.workers.clear()


async def add_worker(deployment: Deployment, proxy: Proxy, **settings: str) -> Role:
    """Start a worker that reaches Redis through the proxy."""
    redis_url = f"redis://127.0.0.1:{proxy.port}/0"
    return await deployment.add_worker(redis_url=redis_url, **settings).ready()


@pytest.fixture(scope="module")
async def shared_nodes() -> AsyncIterator[tuple[Deployment, Proxy]]:
    async with Deployment(api=2, workers=1, lease_s=LEASE_S) as deployment:
        async with Proxy("127.0.0.1", deployment.server.port) as proxy:
            node = deployment.api[0]
            node.kill()
            node.settings["TAILRACE_REDIS_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
            await deployment.heal()
            yield deployment, proxy
            deployment.close()


@pytest.fixture
async def proxied_node(
    shared_nodes: tuple[Deployment, Proxy],
) -> AsyncIterator[tuple[Deployment, Proxy]]:
    """Two nodes, of which the first reaches Redis through a proxy, and a worker at Redis itself."""
    deployment, proxy = shared_nodes
    await deployment.ready()
    yield deployment, proxy
    proxy.flow()
    deployment.urls_seen = []


async def cut_once(proxy: Proxy, after_bytes: int, way: Direction) -> None:
    """Return when the proxy has cut a connection, after so many bytes that go `up` or `down`."""
    cuts = proxy.cuts
    proxy.cut_after(after_bytes, way)
    await until(lambda: proxy.cuts > cuts, 5, "a cut")


async def lose_reply(proxy: Proxy) -> None:
    """Return when the proxy has cut a connection instead of passing a reply on."""
    cuts = proxy.cuts
    proxy.lose_replies()
    await until(lambda: proxy.cuts > cuts, 5, "a lost reply")


async def test_a_workers_connection_is_cut_inside_a_request_and_inside_a_reply(proxied):
    """Up to twelve cuts at odd places in both directions while answers stream: readers see none."""
    deployment, proxy = proxied
    await add_worker(deployment, proxy)
    async with FaultRun(deployment) as fault_run:
        answers = [await fault_run.start(demo_body(110, 60)) for _ in range(3)]
        cuts = 0
        while cuts < 12 and await fault_run.read_on(answers[0], 5):
            await cut_once(proxy, 1 + 97 * cuts % 500, "up" if cuts % 2 else "down")
            cuts += 1
        await fault_run.finish(bound_s=30)

        assert cuts >= 5, "the answer ended before the cuts"
        assert all(a.record.snapshot["status"] == "completed" for a in answers)


async def test_an_append_whose_reply_is_lost_is_not_repeated(proxied):
    """Redis has appended the entries, so it skips each of them when the worker sends them again."""
    deployment, proxy = proxied
    await add_worker(deployment, proxy)
    async with FaultRun(deployment) as fault_run:
        answer = await fault_run.start(demo_body(90, 50))
        losses = 0
        while losses < 6 and await fault_run.read_on(answer, 8):
            await lose_reply(proxy)
            losses += 1
        await fault_run.finish(bound_s=30)

        assert losses >= 3, "the answer ended before the losses"
        assert answer.record.snapshot["status"] == "completed"


async def test_an_outage_for_all_workers_costs_no_attempt(proxied):
    """All leases lapse. The first worker that reconnects must not take over the other answers."""
    deployment, proxy = proxied
    for _ in range(2):
        await add_worker(deployment, proxy)
    async with FaultRun(deployment) as fault_run, aclosing(deployment.redis()) as redis:
        answers = [await fault_run.start(demo_body(70, 50)) for _ in range(6)]
        for answer in answers:
            await fault_run.read_to(answer, 10)

        async def are_lapsed() -> bool:
            seconds, micros = await redis.time()
            leases = [int(await redis.hget(keys.meta(each.id), "lease")) for each in answers]
            return max(leases) < seconds * 1000 + micros // 1000

        await proxy.refuse()
        await until(are_lapsed, 5, "all leases have lapsed")
        proxy.flow()
        await fault_run.finish(bound_s=30)

        failures = [await redis.hget(keys.meta(answer.id), "failures") for answer in answers]
    assert failures == [b"0"] * len(answers)
    assert all(answer.record.snapshot["status"] == "completed" for answer in answers)


async def test_a_worker_in_a_black_hole_stops_its_backend_and_is_replaced(proxied, upstream):
    """No reader gets the answer of a worker without Redis, so the worker must stop its call."""
    deployment, proxy = proxied
    outage = {"redis_outage_s": str(OUTAGE_S)}
    async with FaultRun(deployment) as fault_run:
        lonely = await add_worker(deployment, proxy, **outage)
        # The first call falls silent after a while, so only the worker can end it.
        told = {"tokens": 60, "delay_s": 0.02, "fault": "stall", "fault_at": 20}
        body = {"model": "upstream", "prompt": "go on", "params": {"upstream": told}}
        text = upstream_text("go on", script_of({"messages": [], "upstream": told}))
        answer = await fault_run.start(body, text=text)
        await fault_run.read_to(answer, 10)
        (call,) = upstream.calls
        other = deployment.add_worker(**outage)

        proxy.stall()
        stalled_at = time.monotonic()
        # The worker notices the outage when Redis does not answer in time.
        await until(call.left.is_set, OUTAGE_S + REDIS_ANSWER_S + 3, "the call is closed")
        stopped_s = time.monotonic() - stalled_at
        await other.ready()
        proxy.flow()
        await fault_run.finish(bound_s=30)

        assert lonely.is_running and other.is_running
    assert answer.record.snapshot["status"] == "completed"
    assert starts(answer) == 2
    assert stopped_s > OUTAGE_S, "a short outage is waited out"


async def test_a_node_in_a_black_hole_repairs_itself_afterwards(proxied_node):
    """Its readers wait, hear heartbeats, and miss nothing when the network is back."""
    deployment, proxy = proxied_node
    async with FaultRun(deployment) as fault_run:
        answer = await fault_run.start(demo_body(110, 60), transports=("sse",), hop_after=0)
        await fault_run.read_to(answer, 15)

        proxy.stall()
        other = answer.readings[1]
        await fault_run.read_to_one(other, len(other.deliveries) + 60)
        proxy.flow()

        await fault_run.finish(bound_s=30)


async def test_a_nodes_connections_cut_while_readers_read(proxied_node):
    deployment, proxy = proxied_node
    async with FaultRun(deployment) as fault_run:
        answers = [await fault_run.start(demo_body(110, 60)) for _ in range(3)]
        cuts = 0
        while cuts < 10 and await fault_run.read_on(answers[0], 7):
            await cut_once(proxy, 1 + 211 * cuts % 700, "down")
            cuts += 1

        await fault_run.finish(bound_s=30)

    assert cuts >= 5, "the answer ended before the cuts"


async def test_a_post_whose_answer_is_lost_is_the_same_generation_when_repeated(proxied_node):
    """The client cannot know whether it was accepted; the key makes repeating safe."""
    deployment, _ = proxied_node
    async with (
        Proxy("127.0.0.1", deployment.api[0].port) as proxy,
        Client(deployment.urls) as client,
    ):
        headers = {"Idempotency-Key": secrets.token_hex(8)}
        body = demo_body(5, 0) | {"session": "lost-reply"}
        proxy.lose_replies()
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.ClientError):
                await http.post(
                    f"http://127.0.0.1:{proxy.port}/v1/generations", json=body, headers=headers
                )
            answer = await http.post(
                f"{deployment.urls[1]}/v1/generations", json=body, headers=headers
            )
            assert answer.status == 200, "it had been accepted: a repeat"
            generation_id = (await answer.json())["id"]
            listing = await http.get(f"{deployment.urls[1]}/v1/sessions/lost-reply")
            ids = [g["id"] for g in (await listing.json())["generations"]]

        assert ids == [generation_id]
        await until(lambda: _is_ended(client, generation_id), 10, "its end")


async def _is_ended(client: Client, generation_id: str) -> bool:
    return (await client.snapshot(generation_id))["status"] == "completed"


async def test_a_reader_behind_a_proxy_that_cuts_reads_exactly(proxied_node):
    """Cut at many places of the wire itself, over every transport."""
    deployment, _ = proxied_node
    async with Proxy("127.0.0.1", deployment.api[1].port) as proxy:
        deployment.urls_seen = [f"http://127.0.0.1:{proxy.port}"]
        async with FaultRun(deployment) as fault_run:
            await fault_run.start(demo_body(120, 60), hop_after=0)
            cutting = asyncio.create_task(_cut_now_and_then(proxy))
            await fault_run.finish(bound_s=40)
            cutting.cancel()

    assert proxy.cuts > 10


async def _cut_now_and_then(proxy: Proxy) -> None:
    for n in range(10_000):
        proxy.cut_after(300 + 177 * n % 1_500, "down")
        cuts = proxy.cuts
        await until(lambda: proxy.cuts > cuts, 30, "a cut")  # noqa: B023 - awaited at once
