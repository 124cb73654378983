"""Durable Streams: the official conformance suite, whole, and official clients while nodes die."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.demo import demo_body
from tests.support.node_program import NodeProgram
from tests.support.npm import CLIENTS, installed, tool
from tests.support.processes import ROOT, Deployment
from tests.support.proxy import Proxy
from tests.support.stream_client import StreamClient
from tests.support.wait import until

SUITE_S = 180  # about 20 s on an idle machine
PASSED = 338  # 332, and 6 of subscriptions
SETTINGS = {
    "cors_origins": "*",  # the suite asks for a preflight
    "stream_poll_s": "1",  # the suite waits 2 s for the end of a long poll
    "webhook_private": "allow",  # its receivers are on this machine
}


@pytest.fixture(scope="module")
async def nodes() -> AsyncIterator[Deployment]:
    async with Deployment(api=2, workers=1, jobs=1, settings=SETTINGS) as deployment:
        yield deployment


async def test_the_conformance_suite_passes_whole(nodes: Deployment, tmp_path: Path) -> None:
    installed()
    report = tmp_path / "report.json"
    suite = await asyncio.create_subprocess_exec(
        tool("npx"), "vitest", "run", "--reporter=json", f"--outputFile={report}",
        cwd=CLIENTS, env={**os.environ, "DURABLE_STREAMS_URL": nodes.urls[0] + "/ds"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(SUITE_S):
            output, _ = await suite.communicate()
    except TimeoutError:
        suite.kill()
        raise
    assert report.exists(), output.decode()
    found = json.loads(report.read_text())
    failed = [
        (test["fullName"], test["failureMessages"])
        for file in found["testResults"]
        for test in file["assertionResults"]
        if test["status"] == "failed"
    ]

    assert not failed
    assert found["numPassedTests"] == PASSED


async def test_the_commands_of_the_page_work_as_they_stand(nodes: Deployment) -> None:
    page = (ROOT / "docs/dialects/durable-streams.md").read_text()
    commands = [
        command.replace("http://127.0.0.1:8000", nodes.urls[0])
        for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
        for command in re.split(r"\n(?=curl)", block.strip())
    ]
    said = []
    # The one that follows the stream comes last: it ends when the stream is closed.
    for command in sorted(commands, key=lambda command: "live=sse" in command):
        process = await asyncio.create_subprocess_shell(
            command.replace("curl ", "curl -s --max-time 10 ", 1), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, command
        said.append(output.decode())

    statuses = [int(text.split()[1]) for text in said if text.startswith("HTTP")]
    assert statuses == [201, 204, 200, 200, 204]
    assert said[3].endswith("first, second, ")
    assert any('"worker"' not in text and '"wake_id"' in text for text in said)
    assert "streamClosed" in said[-1] and said[-1].count("event: data") == 2


class Js:
    """The program with the official clients, and a way to a node that can be led elsewhere."""

    def __init__(self, program: NodeProgram, proxy: Proxy, nodes: Deployment) -> None:
        self.program = program
        self.proxy = proxy
        self.nodes = nodes

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.proxy.port}/ds/v1/stream/{path}"

    async def begin(self, name: str, what: str, path: str, **told: Any) -> None:
        await self.program.ask("begin", name=name, what=what, url=self.url(path), **told)

    async def seen(self, name: str) -> int:
        return int((await self.program.ask("seen", name=name))["value"])

    async def reached(self, name: str, length: int) -> None:
        async def has() -> bool:
            return await self.seen(name) >= length

        await until(has, 30, f"{length} characters of {name}")

    async def over(self, name: str) -> Any:
        said = await self.program.ask("over", name=name)
        assert "value" in said, said
        return said["value"]

    async def lose_node(self, number: int) -> None:
        """Kill a node, and lead the way to the other one."""
        self.nodes.api[number].kill()
        self.proxy.aim("127.0.0.1", self.nodes.api[1 - number].port)
        await self.proxy.cut()
        await self.nodes.heal()


@pytest.fixture
async def js(nodes: Deployment) -> AsyncIterator[Js]:
    async with (
        NodeProgram("durable-streams.mjs") as program,
        Proxy("127.0.0.1", nodes.api[0].port) as proxy,
    ):
        yield Js(program, proxy, nodes)


PIECES = 300
TEXT = "".join(f" piece {n}," for n in range(PIECES))  # event streams must keep the first space


async def test_the_javascript_client_writes_and_reads_on_when_nodes_die(js: Js) -> None:
    path = secrets.token_hex(6)
    await js.begin("writer", "produce", path, pieces=PIECES)

    async def exists() -> bool:
        async with StreamClient(js.nodes.urls) as client:
            return (await client.read(path)).status == 200

    await until(exists, 20, "the stream")
    for live in ("sse", "long-poll"):
        await js.begin(live, "follow", path, live=live)
    for turn in range(2):
        await js.reached("sse", 500 * (turn + 1))
        await js.lose_node(turn)

    assert await js.over("writer") == []
    assert (await js.over("sse"))["text"] == TEXT
    assert (await js.over("long-poll"))["text"] == TEXT


async def test_the_javascript_client_reads_a_generation_on_when_a_node_dies(js: Js) -> None:
    async with Client(js.nodes.urls) as client:
        started = await client.start(demo_body(200, 60))
        for live in ("sse", "long-poll"):
            await js.begin(live, "generation", f"generations/{started['id']}", live=live)
        await js.reached("sse", 200)
        await js.lose_node(0)
        found = [await js.over(live) for live in ("sse", "long-poll")]
        snapshot = await client.snapshot(started["id"])

    assert [seen["text"] for seen in found] == [snapshot["text"]] * 2
    for seen in found:
        assert len(set(seen["ids"])) == len(seen["ids"])
        assert seen["ids"][-1] == snapshot["last_event_id"]


async def test_tanstack_ai_reads_a_chat_on_when_a_node_dies(js: Js) -> None:
    path = secrets.token_hex(6)
    write_url = f"{js.nodes.urls[1]}/ds/v1/stream/{path}"
    await js.begin("chat", "chat", path, pieces=PIECES, writeUrl=write_url)
    await js.reached("chat", 500)
    await js.lose_node(0)
    assert await js.over("chat") == TEXT

    await js.begin("snapshot", "snapshot", path)
    message = (await js.over("snapshot"))["messages"][0]
    assert message["parts"] == [{"type": "text", "content": TEXT}]
