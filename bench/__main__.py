"""Runs benchmarks and prints one table: goal, result, and the results of the compared systems.

    python -m bench [names] [--quick] [--repeat 3] [--json FILE]

The exit code is 1 if a reader did not get its exact text, or if a benchmark could not be measured.
A missed goal is shown in the table and is not a failure.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import platform
import resource
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.support import cpu, nchan, resumable
from bench.support.setup import open_setup
from bench.support.table import Row, show, spread

BENCHES = (
    "fan_out",
    "many_streams",
    "worker",
    "burst",
    "idle",
    "first_token",
    "append_to_socket",
    "reconnect",
    "redis_cost",
    "transports",
    "stalled_reader",
    "credentials",
    "limits",
    "stages",
    "routing",
    "batch",
)
ALL = "all"
# These run only if named: `curves` takes long, the others measure other deployments or settings.
BY_NAME = (
    "curves", "partitions", "cluster", "turns", "timeline", "console", "grpc_forms",
    "durable_streams", "ws_deflate", "compression",
)  # fmt: skip
KNOWN = BENCHES + BY_NAME
REPEATS = 3
PATIENCE_S = 8.0  # how long each run waits for a quiet machine


def main() -> None:
    args = parse(sys.argv[1:])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # at least two for each reader
    try:
        rows, failed = asyncio.run(run(args))
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    print("\n" + show(rows, is_judged=not args.quick))
    if failed:
        sys.exit(f"could not be measured: {', '.join(failed)}")


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "names", nargs="*", help=f"{', '.join(KNOWN)}; default: {ALL}, i.e. {', '.join(BENCHES)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: check that it runs, measure nothing"
    )
    parser.add_argument("--repeat", type=int, default=0, help=f"default {REPEATS}, quick 1")
    parser.add_argument(
        "--patience", type=float, help=f"s to wait for a quiet machine; default {PATIENCE_S:.0f}"
    )
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args(argv)
    if unknown := {*args.names} - {*KNOWN, ALL}:
        parser.error(f"no bench {sorted(unknown)[0]!r}; there are {', '.join(KNOWN)}")
    named = [each for name in args.names for each in (BENCHES if name == ALL else (name,))]
    args.names = list(dict.fromkeys(named)) or list(BENCHES)
    args.repeat = args.repeat or (1 if args.quick else REPEATS)
    if args.patience is None:
        args.patience = 0.0 if args.quick else PATIENCE_S
    return args


async def run(args: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """Run the benchmarks in `args`, one after the other.

    Each benchmark has its own processes, so it does not measure what another one left behind.

    Returns:
        the rows, and the names of the benchmarks that failed.
    """
    task = asyncio.current_task()
    assert task is not None
    # Like Ctrl-C: cancel the run, so that no process is left behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    say(f"{len(cpu.CORES)} cores, load {os.getloadavg()[0]:.1f}")
    for missing in filter(None, (nchan.why_missing(), resumable.install())):
        say(missing)
    rows: list[Row] = []
    failed: list[str] = []
    for name in args.names:
        began, busy, ours = time.monotonic(), cpu.busy_s(), cpu.ours_s()
        try:
            async with open_setup(
                is_quick=args.quick, repeats=args.repeat, patience_s=args.patience
            ) as setup:
                rows += [replace(row, bench=name) for row in await bench(name).run(setup)]
        except Exception:  # run the other benchmarks anyway
            traceback.print_exc()
            failed.append(name)
            continue
        if args.json:  # after each benchmark, so that an interrupted run keeps its results
            keep(args.json, rows, is_quick=args.quick)
        took_s = time.monotonic() - began
        others = (cpu.busy_s() - busy - (cpu.ours_s() - ours)) / took_s
        windows = f", in windows {spread(setup.others)}" if setup.others else ""
        say(f"{name}: {took_s:.0f} s; cores busy with others: {others:.2f}{windows}")
    return rows, failed


def keep(path: Path, rows: list[Row], *, is_quick: bool) -> None:
    """Write the rows to a JSON file."""
    records = [row.record() for row in rows]
    found = {"machine": machine(), "is_quick": is_quick, "rows": records}
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False))


def machine() -> dict[str, Any]:
    """Describe the machine and the time of the run."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": len(cpu.CORES),
        "kernel": platform.release().partition("-")[0],  # without the name of the build
        "python": platform.python_version(),
    }


def bench(name: str) -> ModuleType:
    """Import the module of a benchmark."""
    return importlib.import_module(f"bench.{name}")


def say(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
