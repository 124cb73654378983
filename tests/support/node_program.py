"""A Node.js program of tests/clients, told what to do: lines of JSON in, lines of JSON out."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from tests.support.npm import CLIENTS, installed, tool

ANSWER_S = 30.0
LINE_BYTES_MAX = 2**24


class NodeProgram:
    """Use as an async context manager.

    Args:
        key: the API key that its clients use; empty: none.
    """

    def __init__(self, name: str, key: str = "") -> None:
        self.name = name
        self.key = key
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> NodeProgram:
        installed()
        self._process = await asyncio.create_subprocess_exec(
            tool("node"), str(CLIENTS / self.name), cwd=CLIENTS, limit=LINE_BYTES_MAX,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "API_KEY": self.key},
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    async def ask(self, op: str, **told: Any) -> Any:
        """Have something done and return what it said first."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps({"op": op, **told}).encode() + b"\n")
        return await self.said()

    async def said(self) -> Any:
        """Return the next thing that it says; its errors are on stderr.

        Raises:
            AssertionError: it has ended.
        """
        assert self._process is not None and self._process.stdout is not None
        async with asyncio.timeout(ANSWER_S):
            line = await self._process.stdout.readline()
        assert line, f"{self.name} has ended"
        return json.loads(line)
