"""`tailrace up` with its real roles, as somebody runs it on their own machine."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.redis_server import find_binary, free_ports
from tests.support.spawn import kill_group, spawn
from tests.support.wait import until

ROOT = Path(__file__).resolve().parents[2]
READY_S = 60.0  # a cluster and three roles, on a busy machine
END_S = 30.0


class LocalUp:
    """Use as an async context manager.

    Args:
        flags: of `tailrace up`.
        settings: variables, without their prefix.

    Attributes:
        url: of the first node.
    """

    def __init__(self, *flags: str, **settings: str) -> None:
        self._flags = flags
        self._settings = settings
        self._folder = Path(tempfile.mkdtemp(prefix="tru-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.output = self._folder / "output"
        self.port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> LocalUp:
        binaries, temporary = self._folder / "bin", self._folder / "tmp"
        for folder in (binaries, temporary):
            folder.mkdir()
        (binaries / "redis-server").symlink_to(find_binary())
        environ = {
            "PATH": f"{binaries}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(temporary),
            "TAILRACE_DATA_DIR": str(self._folder / "data"),
            "TAILRACE_DRAIN_S": "0.5",
            "TAILRACE_MODELS_DISCOVER": "off",
            **{f"TAILRACE_{name.upper()}": value for name, value in self._settings.items()},
        }
        argv = [sys.executable, "-P", "-m", "cli.main", "up", "--port", str(self.port)]
        self._process = spawn(
            [*argv, *self._flags], env=environ, output=self.output, cwd=self._folder
        )
        await until(self._is_ready, READY_S, "`tailrace up` is ready")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, END_S)
        finally:
            kill_group(self._process)
            shutil.rmtree(self._folder, ignore_errors=True)

    def text(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"`tailrace up` has ended:\n{self.text()}"
        return "Tailrace is ready" in self.text()

    async def state(self, http: aiohttp.ClientSession) -> dict[str, Any]:
        """Return what /v1/break says, as soon as the node answers."""

        async def ask() -> dict[str, Any] | None:
            try:
                async with http.get(f"{self.url}/v1/break") as answer:
                    answer.raise_for_status()
                    found: dict[str, Any] = await answer.json()
                    return found
            except aiohttp.ClientError:
                return None

        found: dict[str, Any] = await until(ask, END_S, "the node answers")
        return found

    async def break_it(self, http: aiohttp.ClientSession, what: str, generation_id: str) -> None:
        """Ask for one fault, as the page does. The answer may be lost with the node."""
        token = (await self.state(http))["token"]
        url = f"{self.url}/v1/break/{what}?id={generation_id}"
        try:
            async with http.post(url, headers={"x-break-token": token}) as answer:
                assert answer.status == 202, await answer.text()
        except aiohttp.ClientConnectionError:
            assert what == "node"
