"""A client of one API address: repeats requests when that is safe, and resumes streams.

A stream is complete when its `end` event has come. A body that stops early, a refused connection
and a 503 are transient errors: the client waits with growing, jittered pauses and continues after
the last event. It gives up after `PATIENCE_S` without any answer.
Knows no terminal.
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

from cli.client.typed_name import typed_name

PATIENCE_S = 60.0  # without any answer, before the client gives up
RESPONSE_S = 10.0  # for a connection, and for the response to a request that is no stream
SILENCE_S = 60.0  # between two reads of a stream; the server sends heartbeats more often
RETRY_PAUSE_S, RETRY_PAUSE_MAX_S = 0.2, 5.0  # the first pause, which doubles, and the longest
EVENT_LINE_BYTES_MAX = 32 * 1024 * 1024

Event = dict[str, Any]


class RequestRefused(Exception):
    """The server refused a request, and would refuse it again.

    Attributes:
        status: the HTTP status.
        code: the error code of docs/protocol.md; "" if the response has none.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ServerUnreachable(Exception):
    """No server answered for too long. The message says what to do."""


class TransientError(Exception):
    """A request failed, but a repetition may succeed."""


class Client:
    """A client of the API node at `url`; an async context manager.

    Args:
        key: the API key; "" for none.
        patience_s: how long requests are repeated without any answer.
    """

    def __init__(self, url: str, key: str = "", *, patience_s: float = PATIENCE_S) -> None:
        self.url = url.rstrip("/")
        self.patience_s = patience_s
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def __aenter__(self) -> Client:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=RESPONSE_S, sock_read=SILENCE_S)
        self._session = aiohttp.ClientSession(
            headers=self._headers, timeout=timeout, read_bufsize=EVENT_LINE_BYTES_MAX
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
        """Start a generation; returns its resource.

        Args:
            key: the idempotency key: repeated requests start one generation.

        Raises:
            RequestRefused: the server does not accept the request.
            ServerUnreachable: no server answered for `patience_s`.
        """
        return await self._persist(
            "POST", "/v1/generations", json=body, headers={"Idempotency-Key": key}
        )

    async def cancel(self, generation_id: str) -> dict[str, Any]:
        """Cancel a generation; returns its resource. Raises as `create` does."""
        return await self._persist("POST", f"/v1/generations/{quote(generation_id)}/cancel")

    async def generations(self, session: str, *, of_all: bool = False) -> list[dict[str, Any]]:
        """Return the generations of a session; with "", all unfinished generations.

        Args:
            of_all: of all owners; the key must be an operator's.

        Raises as `create` does.
        """
        where = f"sessions/{quote(session, safe='')}" if session else "generations?active=1"
        where += "&owner=*" if of_all and not session else ""
        found = await self._persist("GET", f"/v1/{where}")
        return list(found["generations"])

    async def generation(self, generation_id: str) -> dict[str, Any]:
        """Return a generation with its text and messages. Raises as `create` does."""
        return await self._persist("GET", f"/v1/generations/{quote(generation_id, safe='')}")

    async def timeline(self, generation_id: str) -> list[dict[str, Any]]:
        """Return the moments of a generation, the earliest first. Raises as `create` does."""
        path = f"/v1/generations/{quote(generation_id, safe='')}/timeline"
        return list((await self._persist("GET", path))["data"])

    async def metrics(self) -> str:
        """Return the metrics of the node in Prometheus's text. Raises as `create` does."""
        return str((await self._persist("GET", "/metrics"))["text"])

    async def workers(self) -> dict[str, Any]:
        """Return the workers and the queue. Raises as `create` does."""
        return await self._persist("GET", "/v1/workers")

    async def backends(self) -> list[dict[str, Any]]:
        """Return the health of the backends. Raises as `create` does."""
        return list((await self._persist("GET", "/v1/backends")).get("backends", []))

    async def follow(
        self,
        generation_id: str,
        cursor: str = "",
        *,
        on_trouble: Callable[[str], None] = lambda text: None,
    ) -> AsyncIterator[Event]:
        """Yield the events after `cursor` until the end. Reconnects when the connection breaks.

        Args:
            cursor: an event id; "" for the start.
            on_trouble: called with a message when the connection breaks.

        Raises:
            RequestRefused: no such generation, no right to it, or past its retention.
            ServerUnreachable: nothing came for `patience_s`.
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
                return  # 204: the cursor is the last event
            except TransientError as exc:
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
                        break  # the connection broke inside a line
                    if line.strip():
                        yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise TransientError(describe(exc)) from exc
        raise TransientError("the stream stopped before its end")

    async def _persist(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Repeat a request until it succeeds or is refused. Only for requests that may repeat."""
        patience = Patience(self.patience_s)
        while True:
            try:
                return await self._once(method, path, **options)
            except TransientError as exc:
                await patience.wait(self.url, str(exc))

    async def _once(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            async with asyncio.timeout(RESPONSE_S):
                async with self._session.request(method, self.url + path, **options) as response:
                    await check(response)
                    if response.content_type == "text/plain":
                        return {"text": await response.text()}
                    found: dict[str, Any] = await response.json()
                    return found
        except aiohttp.InvalidURL as exc:
            message = f"{self.url} is not a URL: set TAILRACE_URL or --url"
            raise ServerUnreachable(message) from exc
        except aiohttp.ClientConnectorError as exc:
            # Report it at once. The user may have started no server, and a wait looks like a hang.
            raise ServerUnreachable(no_server(self.url)) from exc
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise TransientError(describe(exc)) from exc


class Patience:
    """The pauses between tries of one request, and when to give up.

    Args:
        patience_s: how long to try without any answer.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self.renew()

    def renew(self) -> None:
        """Note an answer: the pauses are short again, and the patience starts anew."""
        self._tries = 0
        self._since = time.monotonic()

    @property
    def is_first(self) -> bool:
        return self._tries == 0

    async def wait(self, url: str, why: str) -> None:
        """Pause before the next try.

        Raises:
            ServerUnreachable: the patience is over; the message names `url` and `why`.
        """
        if time.monotonic() - self._since > self._patience_s:
            message = f"gave up on {url} after {self._patience_s:.0f} s: {why}"
            raise ServerUnreachable(message)
        pause_s = min(RETRY_PAUSE_MAX_S, RETRY_PAUSE_S * 2**self._tries)
        self._tries = min(self._tries + 1, 10)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))


async def check(response: aiohttp.ClientResponse) -> None:
    """Raise the error of a response whose status is 400 or more.

    Raises:
        TransientError: a repetition may succeed.
        RequestRefused: the server would refuse the request again.
    """
    if response.status < 400:
        return
    error: dict[str, Any] = {}
    try:
        error = (await response.json())["error"]
        message = str(error["message"])
    except (aiohttp.ClientError, ValueError, KeyError, TypeError):
        message = f"the server answered {response.status}"
    # An error in OpenAI's form has no member `retryable`.
    if error.get("retryable", response.status in (408, 429) or response.status >= 500):
        raise TransientError(message)
    raise RequestRefused(response.status, str(error.get("code", "")), message)


def describe(error: BaseException) -> str:
    """Return a network error as a message for a person."""
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError):
        return "the server closed the connection"
    return str(error) or type(error).__name__


def no_server(url: str) -> str:
    """Return the message for an address where no server listens."""
    start = f"start one with `{typed_name()} up`"
    return f"no server answers at {url}: {start}, or set TAILRACE_URL or --url"
