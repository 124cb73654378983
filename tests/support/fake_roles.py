"""Stand-ins for the roles, so that the supervisor can be tested without them.

`fake_roles.py up …` is `tailrace up` with these as its roles, `fake_roles.py api …` is one of them.
A role notes what happens to it in files of the directory STAND_IN: `<role>.<pid>` while it lives.
STAND_IN_WORKER says how a worker behaves: "" (drains at once), "stubborn" (ignores SIGTERM),
"refuses" (exit code 2) or "slow" (drains when the file `drain` appears). STAND_IN_KILL_MARGIN_S
replaces the seconds that `up` gives a role beyond its drain time.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cli.up import lifeline

NOTES = Path(os.environ["STAND_IN"])


def command(role: str, flags: Sequence[str]) -> tuple[str, ...]:
    """Without site-packages: a stand-in needs nothing from there, and starts faster."""
    return (sys.executable, "-S", "-P", __file__, role, *flags)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--api", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--metrics-port", type=int, default=0)
    args = parser.parse_args()
    if args.role != "up":
        return role(args)
    # The imports of `up` take 0.35 s of CPU time, and a test starts up to five stand-ins.
    from cli.up import up as up_module
    from shared.config.settings import Settings
    from shared.errors import ConfigurationError

    try:
        if margin_s := os.environ.get("STAND_IN_KILL_MARGIN_S"):
            up_module.KILL_MARGIN_S = float(margin_s)
        return up_module.up(
            Settings.from_env(),
            api=args.api,
            workers=args.workers,
            has_cluster=args.cluster,
            command=command,
        )
    except ConfigurationError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2


def role(args: argparse.Namespace) -> int:
    behaviour = os.environ.get("STAND_IN_WORKER", "") if args.role == "worker" else ""
    if behaviour == "refuses":
        sys.stderr.write("worker: no good\n")
        return 2
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    lifeline.hold(5.0)
    note = NOTES / f"{args.role}.{os.getpid()}"
    with socket.socket() as listener:
        if args.role == "api":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((args.host, args.port))
            listener.listen()
        note.write_text(os.environ["TAILRACE_REDIS_URL"])
        sys.stderr.write(f"tailrace {args.role} ready: {os.getpid()}\n")
        while not ended or behaviour == "stubborn" or (behaviour == "slow" and not _may_drain()):
            time.sleep(0.02)
    note.unlink()
    return 0


def _may_drain() -> bool:
    return (NOTES / "drain").exists()


if __name__ == "__main__":
    sys.exit(main())
