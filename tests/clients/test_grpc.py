"""The official clients of gRPC, gRPC-Web and Connect in Chromium and Node.js, cut and resumed."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, struct_pb2

from api.dialects.grpc.generated import tailrace_pb2
from tests.support.browser import Browser, PageServer
from tests.support.demo import demo_body, expected_text
from tests.support.grpc_client import GrpcClient, Reading, check_order
from tests.support.nginx import FOR_GRPC, Nginx
from tests.support.node_program import NodeProgram
from tests.support.npm import bundle
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.wait import until

IN_PAGES = ["connect", "connect-json", "connect-grpc-web", "grpc-web-text", "grpc-web"]
OVER_GRPC = ["grpc-js", "connect-node-grpc"]
IN_NODE = [*OVER_GRPC, "connect-node", "connect-node-grpc-web"]
CUT_AFTER = 8
BODY = demo_body(60, 60)


@pytest.fixture(scope="module")
async def deployment(pages: PageServer) -> AsyncIterator[Deployment]:
    settings = {"cors_origins": pages.origin}
    async with Deployment(api=2, workers=1, grpc=True, settings=settings) as deployment:
        yield deployment


@pytest.fixture(scope="module")
async def program() -> AsyncIterator[NodeProgram]:
    async with NodeProgram("grpc.mjs") as program:
        yield program


def descriptors() -> str:
    """Return the messages of the interface, as protobuf's own description, in base64."""
    files = descriptor_pb2.FileDescriptorSet()
    for module in (struct_pb2, tailrace_pb2):
        file = files.file.add()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            for field in message.field:  # generated code for Python leaves these names out
                known = module.DESCRIPTOR.message_types_by_name[message.name]
                field.json_name = known.fields_by_name[field.name].camelcase_name
    return base64.b64encode(files.SerializeToString()).decode()


async def started(deployment: Deployment) -> str:
    async with RawClient(*deployment.urls) as api:
        return await api.start(BODY)


async def is_under_way(api: RawClient, generation_id: str) -> bool:
    return len(await api.log(generation_id)) >= 15


def check_reading(said: dict[str, Any], generation_id: str, breaks: int = 1) -> None:
    """Each event came once and in order, over a cut; the text is the known one."""
    places = [tuple(map(int, event_id.split("-"))) for event_id, _, _ in said["events"]]
    assert places == sorted(set(places))
    assert [kind for _, kind, _ in said["events"]].count("end") == 1
    text = "".join(text for _, kind, text in said["events"] if kind == "token")
    assert text == expected_text(BODY, generation_id)
    assert len(said["breaks"]) == breaks, said["breaks"]


def check_calls(said: dict[str, Any]) -> None:
    assert said["statuses"][0] == "queued" and said["statuses"][2] == "cancelled", said
    assert said["id"] in said["listed"]
    assert said["gone"] in ("NotFound", "5")


async def test_nginx_passes_calls_on_and_a_killed_node_is_a_break(deployment: Deployment) -> None:
    await deployment.heal()
    ports = [int(node.grpc_target.rpartition(":")[2]) for node in deployment.api]
    async with Nginx(ports, FOR_GRPC) as nginx:
        target = f"127.0.0.1:{nginx.port}"
        async with GrpcClient(target) as client:
            generation_id = await client.start(BODY)
        readings = [Reading([target], generation_id) for _ in range(4)]
        async with asyncio.TaskGroup() as group:
            for reading in readings:
                group.create_task(reading.run())
            for reading in readings:
                await reading.has(10)
            deployment.api[0].kill()
        for reading in readings:
            check_order(reading.events)
            assert reading.text == expected_text(BODY, generation_id)
        assert any(reading.breaks for reading in readings)
        deployment.api[1].kill()
        async with GrpcClient(target) as client:
            code = await client.call("Start", tailrace_pb2.GenerateRequest(prompt="x")).code()
        assert code is grpc.StatusCode.UNAVAILABLE
    await deployment.heal()


@pytest.mark.parametrize("client", IN_PAGES)
async def test_a_page_reads_over_a_cut_and_calls_every_method(
    deployment: Deployment, browser: Browser, pages: PageServer, client: str
) -> None:
    pages.pages["/grpc"] = f"<!doctype html><script>{bundle('grpc-page.mjs')}</script>"
    page = await browser.open(pages.origin + "/grpc")
    generation_id = await started(deployment)
    told = json.dumps([client, deployment.urls, descriptors(), generation_id, CUT_AFTER])
    # In binary form this client gives its page nothing before the whole answer is there.
    breaks = 0 if client == "grpc-web" else 1
    check_reading(await page.evaluate(f"read(...{told})"), generation_id, breaks)
    told = json.dumps([client, deployment.urls[0], descriptors(), "a long answer"])
    check_calls(await page.evaluate(f"call(...{told})"))

    assert await page.errors() == []
    await page.close()


@pytest.mark.parametrize("client", IN_NODE)
async def test_a_program_reads_over_a_cut_and_calls_every_method(
    deployment: Deployment, program: NodeProgram, client: str
) -> None:
    targets = (
        [node.grpc_target for node in deployment.api] if client in OVER_GRPC else deployment.urls
    )
    generation_id = await started(deployment)
    said = await program.ask(
        "read", client=client, urls=targets, descriptors=descriptors(), id=generation_id,
        cutAfter=CUT_AFTER,
    )  # fmt: skip
    assert "value" in said, said
    check_reading(said["value"], generation_id)
    said = await program.ask(
        "call", client=client, url=targets[0], descriptors=descriptors(), prompt="a long answer"
    )
    assert "value" in said, said
    check_calls(said["value"])


@pytest.mark.parametrize("client", [*IN_PAGES[1:4:2], *OVER_GRPC])
async def test_a_killed_node_is_a_break_and_nothing_is_lost(
    deployment: Deployment, browser: Browser, pages: PageServer, program: NodeProgram, client: str
) -> None:
    await deployment.heal()
    targets = (
        [node.grpc_target for node in deployment.api] if client in OVER_GRPC else deployment.urls
    )
    async with RawClient(deployment.urls[1]) as api:
        generation_id = await api.start(BODY)
    never = 10_000
    if client in OVER_GRPC:
        reading = program.ask(
            "read", client=client, urls=targets, descriptors=descriptors(), id=generation_id,
            cutAfter=never,
        )  # fmt: skip
    else:
        pages.pages["/grpc"] = f"<!doctype html><script>{bundle('grpc-page.mjs')}</script>"
        page = await browser.open(pages.origin + "/grpc")
        told = json.dumps([client, targets, descriptors(), generation_id, never])
        reading = page.evaluate(f"read(...{told})")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reading)
        async with RawClient(deployment.urls[1]) as api:
            await until(lambda: is_under_way(api, generation_id), 20, "a part of the answer")
        deployment.api[0].kill()
        said = await task
    check_reading(said["value"] if client in OVER_GRPC else said, generation_id)
    await deployment.heal()
