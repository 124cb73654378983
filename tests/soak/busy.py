"""How often a living worker is taken for dead when the machine is too busy, and what that costs.

    python -m tests.soak.busy [--seconds 60] [--hogs 4] [--answers 60] [--lease 0.8]

Nothing is killed. Busy processes take every core, and the workers stream so many tokens that their
event loops are never idle. Each attempt after the first is a false takeover; every answer is
audited, because a false takeover may cost time and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun
from tests.support.processes import Deployment

TOKENS, TOKENS_PER_S = 400, 50.0
DEADLINE_S = 120.0


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep so many processes spinning; they end with this one."""
    hogs = [
        subprocess.Popen([sys.executable, "-c", "import os\nwhile os.getppid() > 1: pass"])
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


async def one_round(deployment: Deployment, answers: int) -> tuple[int, float]:
    """Stream so many answers at once; returns the takeovers and the longest gap, s."""
    async with FaultRun(deployment, deadline_s=DEADLINE_S) as fault_run:
        for _ in range(answers):
            await fault_run.start(demo_body(TOKENS, TOKENS_PER_S), readers=1, hop_after=0)
        await fault_run.finish(bound_s=DEADLINE_S)
        logs = [playing.record.log or [] for playing in fault_run.playing]
        starts = sum(entry.type == "start" for log in logs for entry in log)
        gaps = [r.longest_gap_s() for playing in fault_run.playing for r in playing.readings]
        return starts - answers, max(gaps)


async def measure(seconds: float, hogs: int, answers: int, lease_s: float) -> None:
    total, takeovers, longest_s = 0, 0, 0.0
    async with Deployment(api=2, workers=3, lease_s=lease_s) as deployment:
        with busy_cores(hogs):
            until_s = time.monotonic() + seconds
            while time.monotonic() < until_s:
                more, gap_s = await one_round(deployment, answers)
                total, takeovers = total + answers, takeovers + more
                longest_s = max(longest_s, gap_s)
    print(
        f"answers={total} tokens={total * TOKENS} hogs={hogs} lease_s={lease_s}"
        f" false_takeovers={takeovers} longest_gap_s={longest_s:.2f}; every answer whole, no resets"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--hogs", type=int, default=4)
    parser.add_argument("--answers", type=int, default=60)
    parser.add_argument("--lease", type=float, default=0.8)
    args = parser.parse_args()
    asyncio.run(measure(args.seconds, args.hogs, args.answers, args.lease))


if __name__ == "__main__":
    main()
