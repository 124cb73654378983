"""Requests and streams over HTTP for a client without an event loop; the twin of async_http.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2

from tailrace_client.credentials import Credentials, bearer
from tailrace_client.errors import TailraceError, broken, said
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


class Http:
    """The HTTP side of one client."""

    def __init__(self, shared: Shared, credentials: Credentials, client: httpx2.Client) -> None:
        self._shared = shared
        self._credentials = credentials
        self._client = client

    def json(
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
        """Return the JSON of one request; the server may hold the answer for `held_s` seconds."""
        told = parts_of(accept, headers, body, form, content=content)
        with self._open(method, path, accept, held_s=held_s, **told) as response:
            body = Body()
            try:
                for data in response.iter_bytes():
                    body.feed(data)
            except httpx2.HTTPError as exc:
                raise broken(f"the answer broke off: {said(exc)}") from exc
            return parse_json(body.data) if accept == JSON_TYPE else body.data.decode()

    def read(
        self, name: str, asked: ReadRequest, *, silence_s: float | None = None
    ) -> Iterator[Event | None]:
        """Yield the events of a stream (`sse` or `ndjson`), and None for other signs of life.

        Args:
            silence_s: the longest silence before the first byte of the body; default: that which
                the heartbeat allows.

        Raises:
            TailraceError: `silent`, nothing came within `silence_s`.
        """
        accept = ACCEPT[name]
        parser = SseEvents() if name == "sse" else NdjsonEvents()
        headers = asked.headers(name)
        with self._open("GET", f"{asked.path}/events", accept, headers=headers) as response:
            if response.status_code == 204:
                asked.reading.is_over = True
                return
            self._shared.heartbeat.announced(response.headers.get("x-heartbeat-s"))
            limit_s = min(self._shared.heartbeat.silence_max_s, silence_s or float("inf"))
            response.request.extensions["timeout"]["read"] = limit_s
            yield None
            try:
                for data in response.iter_bytes():
                    yield None
                    yield from parser.feed(data)
            except httpx2.ReadTimeout as exc:
                code = "stalled" if silence_s is None else "silent"
                message = f"nothing arrived for {limit_s:g} s"
                raise TailraceError(code, message, retryable=True) from exc
            except httpx2.HTTPError as exc:
                raise broken(f"the stream broke off: {said(exc)}") from exc

    def poll(self, asked: ReadRequest, cursor: str, wait_s: float) -> tuple[list[Event], str, bool]:
        """Poll once. `wait_s` 0 answers at once."""
        path = f"{asked.path}/events?wait={wait_s:g}"
        return read_poll(self.json("GET", path, headers=cursor_headers(cursor), held_s=wait_s))

    def read_polls(self, asked: ReadRequest) -> Iterator[Event | None]:
        """Yield the events of one long poll after the other."""
        cursor, is_done = asked.cursor, False
        while not is_done:
            events, cursor, is_done = self.poll(asked, cursor, self._shared.heartbeat.poll_wait_s)
            yield None
            yield from events
        if not asked.reading.is_done:
            asked.reading.is_over = True

    def content(self, path: str, start: int) -> Iterator[bytes]:
        """Yield the bytes of a file from the byte `start` on, over one connection.

        Raises:
            TailraceError.
        """
        headers = rest_headers(start)
        with self._open("GET", path, BYTES_TYPE, headers=headers) as response:
            check_rest(response, start)
            try:
                yield from response.iter_bytes()
            except httpx2.HTTPError as exc:
                raise broken(f"the download broke off: {said(exc)}") from exc

    @contextmanager
    def _open(
        self, method: str, path: str, wanted: str, *, held_s: float = 0.0, **told: Any
    ) -> Iterator[httpx2.Response]:
        """Open an answer of success and of the wanted type, or of 204."""
        while True:
            token = self._credentials.token()
            told["headers"] = {**told["headers"], **bearer(token)}
            request = self._client.build_request(
                method, self._shared.base + path, timeout=timeouts(self._shared, held_s), **told
            )
            try:
                response = self._client.send(request, stream=True, follow_redirects=False)
            except httpx2.HTTPError as exc:
                raise broken(f"no answer: {said(exc)}") from exc
            try:
                if is_answer(response, wanted):
                    self._credentials.accepted()
                    yield response
                    return
                body = Body()
                try:
                    for data in response.iter_bytes():
                        body.feed(data)
                except httpx2.HTTPError:
                    pass  # the status alone decides
                retry_after = response.headers.get("retry-after")
                error = refusal(response.status_code, body.data, retry_after)
                if error.code != "unauthorized" or not self._credentials.refused(token):
                    raise error
            finally:
                response.close()
