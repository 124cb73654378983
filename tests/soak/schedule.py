"""Which faults happen when: a pure function of the seed, so that a seed repeats a schedule.

A fault names what is done, to which of its kind, and for how long. Whether it meets a process that
another fault has just taken away is up to the run; the schedule is the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple

# Kind and weight. `redis restart` loses up to a second (AOF everysec), the others lose nothing.
KINDS = {
    "worker kill": 6,
    "worker freeze": 3,
    "worker drain": 3,
    "node kill": 4,
    "node drain": 3,
    "redis freeze": 2,
    "redis restart": 2,
    "cut live connections": 3,
    "cut connections": 2,
    "cut through proxy": 2,
    "cut replies": 2,
    "cancel": 3,
}
LOSSY = frozenset({"redis restart", "shard kill", "shard freeze"})
PAUSE_S = (0.8, 3.0)


class Fault(NamedTuple):
    at_s: float  # from the start of the run
    kind: str
    target: int  # index among the processes of that kind, modulo their number
    lasts_s: float  # seconds until the fault is undone


def schedule(
    seed: int, seconds: float, lease_s: float, kinds: Mapping[str, int] = KINDS
) -> Iterator[Fault]:
    """Yield the faults of one run in order."""
    rng = random.Random(seed)
    at_s = 1.0
    while True:
        at_s += rng.uniform(*PAUSE_S)
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        target = rng.randrange(1_000)
        lasts_s = rng.uniform(0.3, 3.0) * lease_s
        if at_s >= seconds:
            return
        yield Fault(at_s, kind, target, lasts_s)
