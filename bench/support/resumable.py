"""Vercel's `resumable-stream` on Node.js with the same Redis, as one process with both sides.

The producer publishes each piece once for each reader. That is a cost of fan-out too, so the
producer is measured, unlike the publisher of nchan. package-lock.json beside this file pins the
packages; `install` fetches them with npm.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import aiohttp

from bench.support.load import InexactText
from bench.support.setup import Setup, WindowMissed
from tests.support.redis_server import free_port
from tests.support.spawn import kill_group, spawn
from tests.support.wait import DeadlineMissed, until

T = TypeVar("T")
HERE = Path(__file__).parent
WHO = "resumable-stream"
INSTALL_S = 120
NODE_MIN = 20
NEEDED = f"no resumable-stream here: Node.js {NODE_MIN} and npm"


class Resumable:
    """The server. Use `async with`."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self.port = free_port()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    async def __aenter__(self) -> Resumable:
        self._directory = TemporaryDirectory(prefix="trv-")
        output = Path(self._directory.name) / "out"
        argv = ["node", "resumable.mjs", str(self.port), self._redis_url]
        env = {"PATH": os.environ["PATH"], "NODE_ENV": "production"}
        self._process: subprocess.Popen[bytes] = spawn(argv, env=env, output=output, cwd=HERE)
        self.pid = self._process.pid
        try:
            await until(lambda: b"listening" in output.read_bytes(), 30, "resumable-stream")
        except BaseException as exc:
            self._close()
            exc.add_note(output.read_text() if output.exists() else "")
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def say(
        self,
        name: str,
        pieces: Sequence[str],
        *,
        per_s: float = 0.0,
        first_s: float = 0.0,
        stays: bool = False,
    ) -> None:
        """Start a stream of these pieces; return when readers can connect.

        Args:
            per_s: pieces per second; 0: all at once.
            stays: the stream does not end after the last piece.
        """
        body = {"pieces": pieces, "per_s": per_s, "first_s": first_s, "stays": stays}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"http://127.0.0.1:{self.port}/say/{name}", json=body) as reply,
        ):
            reply.raise_for_status()

    def _close(self) -> None:
        kill_group(self._process)
        self._directory.cleanup()


async def unless_lost(setup: Setup, run: Awaitable[T]) -> T | None:
    """Return the result of a run; None if readers did not get everything.

    resumable-stream disconnects a reader that waited for a second. Then a message is printed, and
    the rows of the other systems are kept.
    """
    try:
        return await run
    except (InexactText, WindowMissed, DeadlineMissed) as exc:
        print(f"{WHO} is left out: {exc}", file=sys.stderr)
        await setup.load.close()
        return None


def install() -> str:
    """Install the pinned packages with npm if needed.

    Returns:
        why resumable-stream is missing; "" if it is installed.
    """
    # The lock is beside node_modules, because npm empties that: two runs must not do so at once.
    with (HERE / ".installing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not why_missing():
            return ""
        if not shutil.which("npm"):
            return NEEDED
        argv = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1"]
        try:
            subprocess.run(argv, cwd=HERE, capture_output=True, timeout=INSTALL_S)
        except subprocess.TimeoutExpired:
            return f"{NEEDED}: npm had not installed it after {INSTALL_S} s"
    return why_missing()


def why_missing() -> str:
    """Return what to do; "" if nothing is missing."""
    if not shutil.which("node") or _major(_output("node", "--version")) < NODE_MIN:
        return NEEDED
    pinned, found = HERE / "package-lock.json", HERE / "node_modules" / ".package-lock.json"
    return "" if versions(pinned) == versions(found) else f"{NEEDED}: `npm ci` in bench/support"


def versions(lock: Path) -> dict[str, str]:
    """Return path -> version of the packages in a lock file, or of those that npm installed."""
    if not lock.exists():
        return {}
    packages = json.loads(lock.read_text())["packages"]
    return {path: each["version"] for path, each in packages.items() if path}


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=30).stdout


def _major(version: str) -> int:
    """Return the 20 of `v20.11.1`."""
    digits = version.strip().lstrip("v").partition(".")[0]
    return int(digits) if digits.isdigit() else 0
