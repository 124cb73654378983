"""The package `tailrace` on real nodes, through a network that cuts, stalls and lies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.demo import demo_body, expected_text
from tests.support.node_program import NodeProgram
from tests.support.npm import built
from tests.support.processes import Cluster
from tests.support.scenario_proxy import Faults, ScenarioProxy

TRANSPORTS = ["websocket", "sse", "ndjson", "poll", "auto"]


@pytest.fixture(scope="module")
async def nodes() -> AsyncIterator[Cluster]:
    async with Cluster(api=2, workers=2, settings={"heartbeat_s": "1"}) as cluster:
        yield cluster


@pytest.fixture
async def program() -> AsyncIterator[NodeProgram]:
    built()
    async with NodeProgram("tailrace.mjs") as program:
        yield program


def problems_of(outcome: dict[str, Any], body: dict[str, Any]) -> list[str]:
    """What is wrong with a reading: text, each event once, in order, one end."""
    if "error" in outcome:
        return [str(outcome["error"])]
    events, result = outcome["events"], outcome["result"]
    text = expected_text(body, outcome["id"])
    said = "".join(event["text"] for event in events if event["type"] == "token")
    ids = [tuple(map(int, event["id"].split("-"))) for event in events]
    return [
        name
        for name, is_right in {
            "the text": said == text,
            "the text of the result": result["text"] == text,
            "order, each once": ids == sorted(set(ids)),
            "one end, at the end": [e["type"] for e in events].index("end") == len(events) - 1,
            "the status": result["status"] == "completed",
            "the cursor": outcome["cursor"] == events[-1]["id"],
        }.items()
        if not is_right
    ]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_answer_that_is_cut_six_times_is_whole(
    nodes: Cluster, program: NodeProgram, transport: str
) -> None:
    body = demo_body(120, 60)
    faults = Faults(cut_bytes=900, cuts=6)
    async with ScenarioProxy([role.port for role in nodes.api], faults) as proxy:
        runs = [{"url": proxy.url, "transport": transport, "body": body, "jitter": 0.2}]
        (outcome,) = (await program.ask("each", runs=runs))["value"]

    assert problems_of(outcome, body) == []
    assert 7 <= proxy.connections <= 24
