"""Durable Streams: the official conformance suite, whole, at a node of ours."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.npm import CLIENTS, installed, tool
from tests.support.processes import Cluster

SUITE_S = 180  # about 20 s on an idle machine
PASSED = 338  # 332, and 6 of subscriptions
SETTINGS = {
    "cors_origins": "*",  # the suite asks for a preflight
    "stream_poll_s": "1",  # the suite waits 2 s for the end of a long poll
    "webhook_private": "allow",  # its receivers are on this machine
}


@pytest.fixture(scope="module")
async def nodes() -> AsyncIterator[Cluster]:
    async with Cluster(api=2, workers=1, jobs=1, settings=SETTINGS) as cluster:
        yield cluster


async def test_the_conformance_suite_passes_whole(nodes: Cluster, tmp_path: Path) -> None:
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
