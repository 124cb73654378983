"""The story of one answer over a killed worker and readers at two nodes, as an operator sees it."""

from __future__ import annotations

from typing import Any

import httpx2

from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun
from tests.support.pty_command import on_terminal
from tests.support.tls_context import tls_context
from tests.support.wait import until

TOKENS = 60


async def test_each_moment_is_there_in_order_with_the_right_process(fault_run: FaultRun) -> None:
    deployment = fault_run.deployment
    answer = await fault_run.start(demo_body(TOKENS, 40))
    await fault_run.read_to(answer, 10)
    name = answer.record.generation_id

    async def moments() -> list[dict[str, Any]]:
        async with httpx2.AsyncClient(base_url=deployment.urls[0], verify=tls_context()) as client:
            return list((await client.get(f"/v1/generations/{name}/timeline")).json()["data"])

    async def has_begun() -> bool:
        return any(moment["what"] == "first_token" for moment in await moments())

    await until(has_begun, 10, "the first moments are written")
    killed = await fault_run.holder(answer)
    killed_name = killed.ready_name
    killed.kill()
    await fault_run.finish(bound_s=20)

    async def story() -> list[dict[str, Any]] | None:
        found = await moments()
        told = {moment["node"] for moment in found if moment["what"] == "readers"}
        # Both careful readers have gone through both nodes, and have left them.
        is_over = all(
            sum(m.get("joined", 0) - m.get("left", 0) for m in found if m.get("node") == node) == 0
            for node in told
        )
        ends = [moment for moment in found if moment["what"] == "attempt_ended"]
        return found if len(told) == 2 and is_over and len(ends) == 2 else None

    found = await until(story, 20, "the whole story")
    assert found is not None
    steps = [(m["what"], m.get("worker")) for m in found if m["what"] not in ("readers", "gap")]
    next_name = steps[-2][1]
    assert next_name not in (None, killed_name)
    assert steps == [
        ("accepted", None), ("queued", None),
        ("begun", killed_name), ("connected", killed_name), ("first_token", killed_name),
        ("attempt_ended", killed_name),
        ("begun", next_name), ("takeover", next_name), ("connected", next_name),
        ("first_token", next_name), ("attempt_ended", next_name), ("end", None),
    ]  # fmt: skip
    assert [m["at"] for m in found] == sorted(m["at"] for m in found)

    environ = {"TAILRACE_URL": deployment.urls[1], "COLUMNS": "80", "TERM": "xterm"}
    shown, _ = await on_terminal("trace", name, environ=environ)
    assert "lease ran out" in shown.decode() and "\x1b[" in shown.decode()
    _, piped = await on_terminal("trace", name, environ=environ, pipes_answer=True)
    assert killed_name in piped.decode() and "\x1b" not in piped.decode()
