"""What /readyz and /v1/workers say of the jobs role."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shared.later.lag import LATE_S
from shared.redis import keys
from shared.redis.client import clock_ms
from tests.support.shell import OPERATOR, Shell


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    shell = Shell()
    await shell.announce()
    yield shell
    await shell.client.aclose()
    await shell.redis.aclose()


async def fall_behind(shell: Shell) -> None:
    due_ms = await clock_ms(shell.redis) - 2 * LATE_S * 1000
    await shell.redis.zadd(keys.SCHEDULES, {"sched_1": due_ms})


async def test_a_node_is_degraded_while_the_jobs_role_is_stuck(shell: Shell) -> None:
    before = (await shell.client.get("/readyz")).json()
    await fall_behind(shell)

    answer = await shell.client.get("/readyz")

    body = answer.json()
    assert before["status"] == "ready" and before["jobs"]["oldest_due"] is None
    assert (answer.status_code, body["status"], body["degraded"]) == (200, "degraded", ["jobs"])
    assert body["jobs"]["oldest_due"] == "schedules"
    assert body["jobs"]["oldest_due_s"] >= 2 * LATE_S


async def test_the_workers_page_says_how_far_the_jobs_role_is_behind(shell: Shell) -> None:
    await fall_behind(shell)

    body = (await shell.client.get("/v1/workers", headers=OPERATOR)).json()

    assert body["jobs"]["due_s"]["schedules"] >= 2 * LATE_S
    assert body["oldest_s"] == {"interactive": 0.0, "batch": 0.0}


async def test_metrics_say_how_far_the_jobs_role_is_behind(shell: Shell) -> None:
    await fall_behind(shell)

    text = (await shell.client.get("/metrics", headers=OPERATOR)).text

    (line,) = [
        row for row in text.splitlines() if row.startswith('tailrace_jobs_due_seconds{what="sch')
    ]
    assert float(line.rpartition(" ")[2]) >= 2 * LATE_S
