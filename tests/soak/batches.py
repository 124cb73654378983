"""A batch of 900 lines, and random kills until it is done: each line once, calls counted.

    python -m tests.soak.batches --seed 1

Jobs roles, workers, a node and Redis are killed or frozen at random moments and started again.
Ends with an AssertionError where a line is missing or there twice, where an answer is not exact, or
where the log of the batch breaks a rule of the history checker.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys

import openai

from tests.faults import test_batches as faults
from tests.support.processes import Deployment
from tests.support.upstream import Upstream

LINES = 900
KINDS = ("jobs", "jobs", "worker", "redis", "freeze", "api")


async def run(seed: int) -> str:
    """Returns what was done to it, and what that cost."""
    random.seed(seed)
    async with Upstream() as upstream:
        models = faults.MODELS.format(url=upstream.base_url)
        settings = {"worker_slots": str(faults.SLOTS), "queue_wait_s": "1"}
        async with Deployment(
            api=2, workers=2, jobs=2, lease_s=faults.LEASE_S, models=models, settings=settings
        ) as deployment:
            async with faults.running(deployment, LINES, delay_s=0.05) as batch:
                kills = await _kill_until_done(deployment, batch)
                await batch.check_completed()
        calls = faults.asked(upstream)
    assert calls.total() - LINES <= len(kills) * faults.WINDOW
    return f"seed {seed}: {', '.join(kills)}; calls beyond one a line: {calls.total() - LINES}"


async def _kill_until_done(deployment: Deployment, batch: faults.Run) -> list[str]:
    kills: list[str] = []
    while True:
        await asyncio.sleep(random.uniform(0.2, 2.5))
        with contextlib.suppress(openai.APIError):
            if (await batch.look()).status == "completed":
                return kills
        kills.append(random.choice(KINDS))
        await _strike(deployment, kills[-1])
        await deployment.heal()


async def _strike(deployment: Deployment, kind: str) -> None:
    match kind:
        case "jobs":
            for role in random.sample(deployment.jobs, random.choice([1, 2])):
                role.kill()
        case "worker":
            random.choice(deployment.workers).kill()
        case "api":
            deployment.api[1].kill()
        case "redis":
            assert deployment.server is not None
            deployment.server.kill()
        case "freeze":
            random.choice([*deployment.jobs, *deployment.workers]).freeze()
            await asyncio.sleep(2 * faults.LEASE_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    sys.stdout.write(asyncio.run(run(parser.parse_args().seed)) + "\n")
