"""Stops the runs of a worker that drains."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from workers.run import Run


async def hand_over(runs: Mapping[str, Run], freed: asyncio.Event, drain_s: float) -> None:
    """Release runs that another worker can continue; give the others `drain_s` to finish.

    Args:
        runs: the running entries, by generation id.
        freed: set when a run has ended.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + drain_s
    for run in list(runs.values()):
        if run.can_hand_over():
            run.stop("drain")
    while runs and loop.time() < until_s:
        freed.clear()
        try:
            async with asyncio.timeout_at(until_s):
                await freed.wait()
        except TimeoutError:
            break
    for run in list(runs.values()):
        run.stop("drain")
