"""A client of one API address: requests that are repeated when that is safe, readings that resume.

A stream is complete when `end` has come. A body that just stops, a refused connection and a 503 are
passing: the reading waits, longer each time and never all readers in step, and goes on after the
last event it has seen. It gives up when nothing has answered for `PATIENCE_S`.
Knows nothing of the terminal.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any
from urllib.parse import quote

import aiohttp

PATIENCE_S = 60.0
ANSWER_S = 10.0
SILENCE_S = 60.0  # heartbeats come more often
PAUSE_S, PAUSE_S_MAX = 0.2, 5.0
LINE_BYTES_MAX = 32 * 1024 * 1024

Event = dict[str, Any]


class Refused(Exception):
    """The server said no, and would say so again."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Unreachable(Exception):
    """Nothing answered for too long."""


class Passing(Exception):
    """It may work in a moment."""


class Client:
    """Talks to `url` with `key`.

    Args:
        patience_s: how long to go on without any answer.
    """

    def __init__(self, url: str, key: str = "", *, patience_s: float = PATIENCE_S) -> None:
        self.url = url.rstrip("/")
        self.patience_s = patience_s
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def __aenter__(self) -> Client:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_S, sock_read=SILENCE_S)
        self._session = aiohttp.ClientSession(
            headers=self._headers, timeout=timeout, read_bufsize=LINE_BYTES_MAX
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def create(self, body: dict[str, Any], key: str) -> dict[str, Any]:
        """Start a generation; `key` makes repeats safe."""
        return await self._persist(
            "POST", "/v1/generations", json=body, headers={"Idempotency-Key": key}
        )

    async def cancel(self, generation_id: str) -> dict[str, Any]:
        return await self._persist("POST", f"/v1/generations/{quote(generation_id)}/cancel")

    async def generations(self, session: str) -> list[dict[str, Any]]:
        """List a session, or, with none, all that is unfinished."""
        where = f"sessions/{quote(session, safe='')}" if session else "generations?active=1"
        found = await self._persist("GET", f"/v1/{where}")
        return list(found["generations"])

    async def workers(self) -> dict[str, Any]:
        return await self._persist("GET", "/v1/workers")

    async def follow(
        self,
        generation_id: str,
        cursor: str = "",
        *,
        on_trouble: Callable[[str], None] = lambda text: None,
    ) -> AsyncIterator[Event]:
        """Yield the events after `cursor` until the end, over as many connections as it takes.

        Raises:
            Refused: no such generation, no right to it, or past its retention.
            Unreachable: nothing came for `patience_s`.
        """
        path = f"/v1/generations/{quote(generation_id, safe='')}/events"
        async for event in self._follow(path, cursor, on_trouble):
            yield event

    async def _follow(
        self, path: str, cursor: str, on_trouble: Callable[[str], None]
    ) -> AsyncIterator[Event]:
        patience = Patience(self.patience_s)
        while True:
            try:
                async for event in self._stream(path, cursor):
                    patience.renew()
                    cursor = "" if event["id"] == "0-0" else event["id"]
                    yield event
                    if event["type"] == "end":
                        return
                return  # 204: the cursor was the end
            except Passing as exc:
                if patience.is_first:
                    on_trouble(f"connection lost ({exc}), coming back")
                await patience.wait(self.url, str(exc))

    async def _stream(self, path: str, cursor: str) -> AsyncIterator[Event]:
        headers = {"Accept": "application/x-ndjson"}
        if cursor:
            headers["Last-Event-ID"] = cursor
        try:
            async with self._session.get(self.url + path, headers=headers) as response:
                await check(response)
                if response.status == 204:
                    return
                async for line in response.content:
                    if not line.endswith(b"\n"):
                        break  # cut in the middle
                    if line.strip():
                        yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise Passing(words(exc)) from exc
        raise Passing("the stream stopped before its end")

    async def _persist(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Make a request that may be repeated until it gets through."""
        patience = Patience(self.patience_s)
        while True:
            try:
                return await self._once(method, path, **options)
            except Passing as exc:
                await patience.wait(self.url, str(exc))

    async def _once(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            async with asyncio.timeout(ANSWER_S):
                async with self._session.request(method, self.url + path, **options) as response:
                    await check(response)
                    found: dict[str, Any] = await response.json()
                    return found
        except aiohttp.InvalidURL as exc:
            raise Unreachable(f"{self.url} is not a URL: set TAILRACE_URL or --url") from exc
        except aiohttp.ClientConnectorError as exc:
            # Nobody listens: waiting would look like hanging to somebody who has started nothing.
            raise Unreachable(nobody(self.url)) from exc
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise Passing(words(exc)) from exc


class Patience:
    """How long to wait before the next try, and when to stop trying."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self.renew()

    def renew(self) -> None:
        """Something came: start again from the short pauses."""
        self._tries = 0
        self._since = time.monotonic()

    @property
    def is_first(self) -> bool:
        return self._tries == 0

    async def wait(self, url: str, why: str) -> None:
        if time.monotonic() - self._since > self._patience_s:
            raise Unreachable(f"gave up on {url} after {self._patience_s:.0f} s: {why}")
        pause_s = min(PAUSE_S_MAX, PAUSE_S * 2**self._tries)
        self._tries = min(self._tries + 1, 10)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))


async def check(response: aiohttp.ClientResponse) -> None:
    if response.status < 400:
        return
    error: dict[str, Any] = {}
    try:
        error = (await response.json())["error"]
        message = str(error["message"])
    except (aiohttp.ClientError, ValueError, KeyError, TypeError):
        message = f"the server answered {response.status}"
    # OpenAI's shape says nothing of it.
    if error.get("retryable", response.status in (408, 429) or response.status >= 500):
        raise Passing(message)
    raise Refused(response.status, str(error.get("code", "")), message)


def words(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
        return "it broke off"
    return str(error) or type(error).__name__


def nobody(url: str) -> str:
    return f"nothing answers at {url}: start it with `tailrace up`, or set TAILRACE_URL or --url"
