"""How long an answer stands still when its worker is killed: many kills, one line of figures.

    python -m tests.soak.takeover [--kills 200] [--lease 0.8]

Two nodes, three workers. For each kill an answer is started, its holder is killed with -9 at a
random moment, and the time from the kill to the first event of the next attempt is taken at a
reader. Every answer is audited. Figures are multiples of the lease; half of a run says as much as
all of it, the tail needs the number.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time

from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.processes import Deployment
from tests.support.wait import until


async def kill_once(deployment: Deployment, rng: random.Random, lease_s: float) -> float:
    """One answer, one kill; returns the seconds to the next attempt's first event."""
    async with FaultRun(deployment) as fault_run:
        playing = await fault_run.start(demo_body(240, 100), readers=1)
        await fault_run.read_to(playing, 2)
        await asyncio.sleep(rng.uniform(0, lease_s))
        holder = await fault_run.holder(playing)
        holder.kill()
        killed_at = time.monotonic()
        holder.start()
        await until(lambda: taken_over_at(playing) > 0, 20 * lease_s, "takeover")
        took_s = taken_over_at(playing) - killed_at
        await fault_run.finish()
        await holder.ready()
        return took_s


def taken_over_at(playing: WatchedGeneration) -> float:
    (reading,) = playing.readings
    moments = [d.at for d in reading.deliveries if not d.event_id.startswith("1-")]
    return moments[0] if moments else 0.0


async def measure(kills: int, lease_s: float, seed: int) -> None:
    rng = random.Random(seed)
    took: list[float] = []
    async with Deployment(api=2, workers=3, lease_s=lease_s) as deployment:
        for n in range(kills):
            took.append(await kill_once(deployment, rng, lease_s) / lease_s)
            if n % 20 == 19:
                sys.stderr.write(f"{n + 1} kills\n")
    took.sort()
    p99 = took[min(len(took) - 1, round(0.99 * len(took)) - 1)]
    print(
        f"kills={kills} lease_s={lease_s} p50={statistics.median(took):.2f} p99={p99:.2f}"
        f" max={took[-1]:.2f} (multiples of the lease)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--lease", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    asyncio.run(measure(args.kills, args.lease, args.seed))


if __name__ == "__main__":
    main()
