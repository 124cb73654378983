"""`tailrace tail` behind broken networks: the terminal has the resume of the Python client."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest

from tests.support.client import Client
from tests.support.demo import demo_body, expected_text
from tests.support.processes import ROOT, Deployment
from tests.support.scenario_proxy import Faults, ScenarioProxy

BODY = demo_body(120, 40)
NETWORKS = {
    "six cuts": Faults(cut_bytes=700, cuts=6),
    "a captive portal": Faults(answers=(200, 502, 200)),
    "no Upgrade, and streams are held back": Faults(is_upgrade_stripped=True, is_buffered=True),
}
CONNECTIONS_MAX = 24
END_S = 60.0


async def tail(url: str, generation_id: str) -> tuple[int, list[str], str]:
    """Run the command; return its exit code, its lines, and what it wrote to standard error."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAILRACE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "cli.main", "tail", generation_id, "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**kept, "TAILRACE_URL": url, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    async with asyncio.timeout(END_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode().splitlines(), err.decode()


@pytest.mark.parametrize("network", NETWORKS)
async def test_tail_prints_each_event_once_over_a_broken_network(
    deployment: Deployment, network: str
) -> None:
    async with Client(deployment.urls) as client:
        generation_id = (await client.start(BODY))["id"]
    ports = [role.port for role in deployment.api]
    async with ScenarioProxy(ports, NETWORKS[network]) as proxy:
        code, lines, err = await tail(proxy.url, generation_id)

    events = [json.loads(line) for line in lines]
    ids = [tuple(map(int, event["id"].split("-"))) for event in events]
    text = "".join(event["text"] for event in events if event["type"] == "token")
    assert (code, text) == (0, expected_text(BODY, generation_id)), err
    assert ids == sorted(set(ids))
    assert proxy.connections <= CONNECTIONS_MAX
    # One try that fails before the first answer is no news: a network may have no WebSockets.
    assert ("connection lost" in err) is (not NETWORKS[network].is_buffered)
