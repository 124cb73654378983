"""Requests and streams over HTTP, async: credentials, limits, errors that say what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from tailrace_client.credentials import Credentials, bearer
from tailrace_client.errors import broken, said
from tailrace_client.events import Event
from tailrace_client.options import Shared
from tailrace_client.request import (
    ReadRequest,
    check_rest,
    is_answer,
    parts_of,
    rest_headers,
    timeouts,
)
from tailrace_client.wire import (
    ACCEPT,
    BYTES_TYPE,
    JSON_TYPE,
    Body,
    NdjsonEvents,
    SseEvents,
    cursor_headers,
    parse_json,
    read_poll,
    refusal,
)


class AsyncHttp:
    """The HTTP side of one client."""

    def __init__(
        self, shared: Shared, credentials: Credentials, client: httpx2.AsyncClient
    ) -> None:
        self._shared = shared
        self._credentials = credentials
        self._client = client

    async def json(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        form: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        accept: str = JSON_TYPE,
        held_s: float = 0.0,
    ) -> Any:
        """Return the JSON of one request.

        Args:
            form: the parts of a multipart body, as httpx2 takes them.
            content: the bytes of another body.
            held_s: how long the server may hold the answer.

        Raises:
            TailraceError.
        """
        told = parts_of(accept, headers, body, form, content=content)
        async with self._open(method, path, accept, held_s=held_s, **told) as response:
            body = Body()
            try:
                async for data in response.aiter_bytes():
                    body.feed(data)
            except httpx2.HTTPError as exc:
                raise broken(f"the answer broke off: {said(exc)}") from exc
            return parse_json(body.data) if accept == JSON_TYPE else body.data.decode()

    async def read(self, name: str, asked: ReadRequest) -> AsyncIterator[Event | None]:
        """Yield the events of a stream (`sse` or `ndjson`), and None for other signs of life."""
        accept = ACCEPT[name]
        parser = SseEvents() if name == "sse" else NdjsonEvents()
        headers = asked.headers(name)
        async with self._open("GET", f"{asked.path}/events", accept, headers=headers) as response:
            if response.status_code == 204:
                asked.reading.is_over = True
                return
            self._shared.heartbeat.announced(response.headers.get("x-heartbeat-s"))
            response.request.extensions["timeout"]["read"] = self._shared.heartbeat.silence_max_s
            yield None
            try:
                async for data in response.aiter_bytes():
                    yield None
                    for event in parser.feed(data):
                        yield event
            except httpx2.HTTPError as exc:
                raise broken(f"the stream broke off: {said(exc)}") from exc

    async def poll(
        self, asked: ReadRequest, cursor: str, wait_s: float
    ) -> tuple[list[Event], str, bool]:
        """Poll once. `wait_s` 0 answers at once."""
        path = f"{asked.path}/events?wait={wait_s:g}"
        headers = cursor_headers(cursor)
        return read_poll(await self.json("GET", path, headers=headers, held_s=wait_s))

    async def read_polls(self, asked: ReadRequest) -> AsyncIterator[Event | None]:
        """Yield the events of one long poll after the other."""
        cursor, is_done = asked.cursor, False
        while not is_done:
            wait_s = self._shared.heartbeat.poll_wait_s
            events, cursor, is_done = await self.poll(asked, cursor, wait_s)
            yield None
            for event in events:
                yield event
        if not asked.reading.is_done:
            asked.reading.is_over = True

    async def content(self, path: str, start: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a file from the byte `start` on, over one connection.

        Raises:
            TailraceError.
        """
        headers = rest_headers(start)
        async with self._open("GET", path, BYTES_TYPE, headers=headers) as response:
            check_rest(response, start)
            try:
                async for data in response.aiter_bytes():
                    yield data
            except httpx2.HTTPError as exc:
                raise broken(f"the download broke off: {said(exc)}") from exc

    @asynccontextmanager
    async def _open(
        self, method: str, path: str, wanted: str, *, held_s: float = 0.0, **told: Any
    ) -> AsyncIterator[httpx2.Response]:
        """Open an answer of success and of the wanted type, or of 204."""
        while True:
            token = await self._credentials.token_async()
            told["headers"] = {**told["headers"], **bearer(token)}
            request = self._client.build_request(
                method, self._shared.base + path, timeout=timeouts(self._shared, held_s), **told
            )
            try:
                response = await self._client.send(request, stream=True, follow_redirects=False)
            except httpx2.HTTPError as exc:
                raise broken(f"no answer: {said(exc)}") from exc
            try:
                if is_answer(response, wanted):
                    self._credentials.accepted()
                    yield response
                    return
                body = Body()
                try:
                    async for data in response.aiter_bytes():
                        body.feed(data)
                except httpx2.HTTPError:
                    pass  # the status alone decides
                retry_after = response.headers.get("retry-after")
                error = refusal(response.status_code, body.data, retry_after)
                if error.code != "unauthorized" or not self._credentials.refused(token):
                    raise error
            finally:
                await response.aclose()
