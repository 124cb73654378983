"""Model servers of a route die, freeze, refuse and are cut, with many answers; prints a table.

    python -m tests.soak.routes [--answers 50] [--cuts 200]

Two nodes, two workers, two model servers; two readers for each answer, which change node and
transport. The program ends with an error if a reader gets another text, or an event twice. The
table stands in docs/routing.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.support.processes import Deployment
from tests.support.route_faults import FAULTS, IDLE_S, ModelServer, Scene, models_file, play

HEAD = """\
| what happens | answers | readers exact, each event once | `reset` | requests to `a` + `b` \
| takeovers | counted failures | longest silence, s |
|---|---|---|---|---|---|---|---|"""
# Settings' default. With the 0.8 s of the faults' tests a worker on a busy machine stands still for
# longer than its lease: then another worker asks the same server again, which no fault explains.
LEASE_S = 3.0
AT_ONCE_MAX = 50  # answers that run at the same time
# So slow that the last of 50 prompts is accepted before the first answer ends.
LONG = {"tokens": 500, "delay_s": 0.05}


async def measure(answers: int, cuts: int) -> None:
    directory = Path(tempfile.mkdtemp(prefix="trm-"))
    a, b = ModelServer(directory, "a"), ModelServer(directory, "b")
    settings = {"upstream_idle_s": str(IDLE_S)}
    models = models_file(a, b)
    async with Deployment(
        workers=2, models=models, settings=settings, lease_s=LEASE_S
    ) as deployment:
        await a.start()
        await b.start()
        scene = Scene(deployment, a, b)
        print(HEAD)
        try:
            for fault in FAULTS.values():
                count = cuts if fault.cuts_each else answers
                script = {"tokens": cuts + 1} if fault.cuts_each else LONG
                played = await play(scene, fault, count, at_once=AT_ONCE_MAX, script=script)
                print(played.row(), flush=True)
        finally:
            a.kill()
            b.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--answers", type=int, default=50)
    parser.add_argument("--cuts", type=int, default=200)
    args = parser.parse_args()
    try:
        asyncio.run(measure(args.answers, args.cuts))
    except AssertionError as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
