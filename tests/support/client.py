"""The plain requests of a native client: start, snapshot, cancel; repeated until a node answers.

A start carries an Idempotency-Key, so repeating it at another node is safe: this is what the
protocol tells clients to do, and what the fault tests rely on.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Sequence
from typing import Any

import aiohttp

RETRY_S = 0.05


class NoAnswer(AssertionError):
    """No node served the request in time."""


class Client:
    """Talks to several nodes in turn. Use as an async context manager.

    Args:
        nodes: base URLs, for example `http://127.0.0.1:8000`.
        key: API key, when the nodes want one.
    """

    def __init__(self, nodes: Sequence[str], *, key: str = "", deadline_s: float = 15.0) -> None:
        self._nodes = itertools.cycle(nodes)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._deadline_s = deadline_s
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        # No kept connection: a node that was killed must not be met through an old one.
        connector = aiohttp.TCPConnector(force_close=True)
        self._http = aiohttp.ClientSession(connector=connector, headers=self._headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._http is not None
        await self._http.close()

    async def start(self, body: dict[str, Any], *, node: str = "") -> dict[str, Any]:
        """POST a prompt and return the accepted generation."""
        headers = {"Idempotency-Key": secrets.token_hex(12)}
        return await self._call("POST", "/v1/generations", body=body, headers=headers, node=node)

    async def snapshot(self, generation_id: str, *, node: str = "") -> dict[str, Any]:
        return await self._call("GET", f"/v1/generations/{generation_id}", node=node)

    async def cancel(self, generation_id: str, *, node: str = "") -> dict[str, Any]:
        return await self._call("POST", f"/v1/generations/{generation_id}/cancel", node=node)

    async def readyz(self, node: str) -> dict[str, Any]:
        """Return once the node says that it can serve."""
        return await self._call("GET", "/readyz", node=node)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        node: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send until a node answers with 2xx; 5xx and broken connections are tried again.

        Raises:
            NoAnswer: not within the deadline, or a 4xx, which repeating cannot help.
        """
        assert self._http is not None
        deadline = time.monotonic() + self._deadline_s
        problem = ""
        while time.monotonic() < deadline:
            url = (node or next(self._nodes)) + path
            try:
                timeout = aiohttp.ClientTimeout(total=6)
                async with self._http.request(
                    method, url, json=body, headers=headers, timeout=timeout
                ) as response:
                    if response.status < 300:
                        answer: dict[str, Any] = await response.json(content_type=None)
                        return answer
                    problem = f"{method} {url}: {response.status} {await response.text()}"
                    if response.status < 500:
                        raise NoAnswer(problem)
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                problem = f"{method} {url}: {exc!r}"
            await asyncio.sleep(RETRY_S)
        raise NoAnswer(problem)
