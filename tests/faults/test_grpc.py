"""gRPC over nodes that die and drain, readers that read nothing, and workers that are killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from api.dialects.grpc.generated import tailrace_pb2 as pb
from tests.support.demo import demo_body, expected_text
from tests.support.grpc_client import GrpcClient, Reading, check_order, events_of
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.wait import until

END_S = 30.0
LONG = demo_body(90, 60)


@pytest.fixture(scope="module")
async def shared_deployment() -> AsyncIterator[Deployment]:
    settings = {"subscriber_bytes_max": "65536", "drain_s": "1.5"}
    async with Deployment(
        api=2, workers=2, lease_s=0.8, grpc=True, settings=settings
    ) as deployment:
        yield deployment
        # grpcio logs what a call raises; a client that leaves or is cut is no defect.
        for node in deployment.api:
            assert "Traceback" not in node.output.read_text(), node.stderr()


@pytest.fixture
def targets(deployment: Deployment) -> list[str]:
    return [node.grpc_target for node in deployment.api]


async def has_cut(raw: RawClient) -> bool:
    text = (await raw.get("/metrics")).body.decode()
    return "\ntailrace_hub_cuts_total 0.0" not in text


async def read_whole(reading: Reading, task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(END_S):
        await task
    check_order(reading.events)


async def test_a_reader_of_a_killed_node_goes_on_at_the_other_one(
    deployment: Deployment, targets: list[str]
) -> None:
    async with GrpcClient(targets[1]) as client:
        generation_id = await client.start(LONG)
    reading = Reading(targets, generation_id)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reading.run())
        await reading.has(20)
        deployment.api[0].kill()
        await read_whole(reading, task)

    assert reading.text == expected_text(LONG, generation_id)
    assert reading.breaks and set(reading.breaks) == {grpc.StatusCode.UNAVAILABLE}


async def test_a_drain_sends_clients_away_and_no_event_is_lost_or_repeated(
    deployment: Deployment, targets: list[str]
) -> None:
    body = demo_body(170, 60)  # 2.8 s: longer than the drain
    async with GrpcClient(targets[0]) as client:
        generation_id = await client.start(body)
        readings = [Reading(targets, generation_id) for _ in range(8)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(reading.run()) for reading in readings]
            for reading in readings:
                await reading.has(10)
            health = health_pb2_grpc.HealthStub(client.channel)
            asked = health_pb2.HealthCheckRequest(service="tailrace.v1.Tailrace")
            watch = client.adopt(health.Watch(asked))
            while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
                pass  # the node has just started
            deployment.api[0].terminate()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            # GOAWAY: the next call of this channel goes nowhere, although its stream lives.
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.call("Get", pb.GetRequest(id=generation_id), timeout_s=5)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert await deployment.api[0].ended(8) == 0
            for reading, task in zip(readings, tasks, strict=True):
                await read_whole(reading, task)

    for reading in readings:
        assert reading.text == expected_text(body, generation_id)
        assert set(reading.breaks) == {grpc.StatusCode.UNAVAILABLE}


async def test_a_killed_worker_is_not_seen_but_in_the_events(
    deployment: Deployment, targets: list[str]
) -> None:
    async with GrpcClient(targets[0]) as client:
        generation_id = await client.start(LONG)
    reading = Reading(targets, generation_id)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reading.run())
        await reading.has(20)
        for worker in deployment.workers:
            worker.kill()
        await deployment.heal()
        await read_whole(reading, task)

    assert reading.text == expected_text(LONG, generation_id)
    assert [event.start.attempt for event in reading.events if event.HasField("start")] == [1, 2]
    assert reading.breaks == []


async def test_a_reader_that_reads_nothing_is_cut_and_goes_on(
    deployment: Deployment, targets: list[str]
) -> None:
    """The client's window is small, so that the node's writes block soon."""
    body = demo_body(120_000, 0)
    windows = {"http2.lookahead_bytes": 65_536, "http2.bdp_probe": 0}
    async with GrpcClient(targets[0], **windows) as client:
        generation_id = await client.start(body)
        call = client.call("Attach", pb.AttachRequest(id=generation_id), timeout_s=60)
        await call.initial_metadata()  # and then it reads nothing, until it is cut
        async with RawClient(deployment.api[0].url) as raw:
            await until(lambda: has_cut(raw), END_S, "the cut")
        reading = Reading(targets, generation_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for event in events_of(call):
                reading.events.append(event)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "too slowly" in (caught.value.details() or "")
    assert not reading.has_ended
    async with asyncio.timeout(END_S):
        await reading.run()

    check_order(reading.events)
    assert reading.text == expected_text(body, generation_id)
