"""Sentinel moves the master again and again: many switches, one line of figures.

    python -m tests.soak.sentinel [--rounds 16] [--seed 7]

Two nodes, two workers, the jobs role, three sentinels. Each round kills the master, freezes it, or
has a sentinel promote the replica, at random; the old master comes back and is the replica of the
next round. Prompts come all the time. After each switch every prompt that was answered 202 must be
at the new master, and none at the old one. Three answers of each round have careful readers, and
every answer is audited at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import random

from tests.support.demo import demo_body
from tests.support.sentinel_setup import SentinelSetup, standing

FAULTS = ("killed", "frozen", "told to go")
LONG = demo_body(5_000, 50)


async def play_round(setup: SentinelSetup, fault: str) -> tuple[int, float]:
    """One switch; returns the prompts accepted after it, and the time to the first of them, s."""
    answers = [await setup.fault_run.start(LONG, is_cut_short=True) for _ in range(3)]
    for answer in answers:
        await setup.fault_run.read_to(answer, 8)
    await setup.lose_master(fault)
    await setup.goes_on()
    first_s = setup.first_s
    setup.bring_back(fault)
    await setup.demoted()
    for answer in answers:
        await setup.fault_run.read_on(answer, 6)
        await setup.fault_run.cancel(answer)
    await setup.check_prompts()
    late = len(setup.accepted_after)
    await setup.change_places()
    return late, first_s


async def measure(rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    late, longest_s = 0, 0.0
    async with standing(jobs=1) as setup:
        for number in range(rounds):
            fault = rng.choice(FAULTS)
            prompts, first_s = await play_round(setup, fault)
            late, longest_s = late + prompts, max(longest_s, first_s)
            print(f"{number} {fault}: {prompts} prompts, the first after {first_s:.3f} s")
        await setup.fault_run.finish(bound_s=20.0 * rounds)
        readings = [reading for playing in setup.fault_run.playing for reading in playing.readings]
    print(
        f"switches={rounds} seed={seed} accepted_after={late} lost=0 "
        f"longest_to_first_s={longest_s:.3f} readers={len(readings)} "
        f"resets={sum(reading.resets for reading in readings)}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    asyncio.run(measure(options.rounds, options.seed))
