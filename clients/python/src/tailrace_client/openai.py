"""Transports of httpx2 under OpenAI's SDK: a broken chat completion is resumed unseen.

    client = OpenAI(base_url=…, http_client=httpx2.Client(transport=ResumingTransport()))

Every chat completion gets an idempotency key, so a repeat is the same answer. After a break the
request is repeated, at any node, and the chunks that were passed are left out.
"""

from __future__ import annotations

import asyncio
import json
import random as random_module
import time
from collections.abc import AsyncIterator, Callable, Iterator

import httpx2

from tailrace_client.events import START_CURSOR, is_event_id, order
from tailrace_client.pace import BackOff, Heartbeat
from tailrace_client.wire import Lines, new_key

GIVE_UP_S = 120.0
PASSING_STATUSES = (502, 503, 504)  # of a proxy or a node in trouble
EVENT_STREAM = "text/event-stream"


class ChatReplay:
    """Decides which chunks are new. Without I/O."""

    def __init__(self) -> None:
        self.is_done = False
        self._last = START_CURSOR
        self._passed = (
            0  # how many chunks of the event `last` were passed; an event may have several
        )
        self.begin()

    def begin(self) -> None:
        """A connection begins at the first chunk."""
        self._lines = Lines()
        self._data: list[bytes] = []
        self._seen = 0
        self._seen_id = START_CURSOR

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the new blocks; a block without its blank line is void."""
        for line in self._lines.feed(data):
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                block, self._data = b"\n".join(self._data), []
                if self._is_new(block):
                    yield b"data: %b\n\n" % block

    def _is_new(self, block: bytes) -> bool:
        if self.is_done:
            return False
        if block == b"[DONE]":
            self.is_done = True
            return True
        try:
            chunk = json.loads(block)
        except ValueError:
            return True
        event_id = chunk.get("event_id") if isinstance(chunk, dict) else None
        if not is_event_id(event_id):
            return True
        self._seen = self._seen + 1 if event_id == self._seen_id else 1
        self._seen_id = str(event_id)
        if order(self._seen_id) < order(self._last):
            return False
        if self._seen_id == self._last and self._seen <= self._passed:
            return False
        self._last, self._passed = self._seen_id, self._seen
        return True


class _Attempts:
    """One request and its repeats. Without I/O."""

    def __init__(
        self, request: httpx2.Request, content: bytes, random: Callable[[], float], give_up_s: float
    ) -> None:
        self.replay = ChatReplay()
        self._heartbeat = Heartbeat()
        self._request = request
        self._content = content
        self._back_off = BackOff(random)
        self._give_up_s = give_up_s
        self._headers = httpx2.Headers(request.headers)
        self._headers.setdefault("idempotency-key", new_key())
        self._headers["accept-encoding"] = "identity"

    def next_request(self) -> httpx2.Request:
        self.replay.begin()
        timeout = dict(self._request.extensions.get("timeout") or {})
        return httpx2.Request(
            self._request.method,
            self._request.url,
            headers=self._headers,
            content=self._content,
            extensions={**self._request.extensions, "timeout": timeout},
        )

    def opened(self, request: httpx2.Request, response: httpx2.Response) -> None:
        """From now on two missing heartbeats are a broken connection."""
        self._heartbeat.announced(response.headers.get("x-heartbeat-s"))
        request.extensions["timeout"]["read"] = self._heartbeat.silence_max_s

    def take(self, data: bytes) -> Iterator[bytes]:
        self._back_off.alive()
        for block in self.replay.feed(data):
            self._back_off.progress()
            yield block

    def pause_s(self, error: Exception | None) -> float | None:
        """Return the pause before the next try; None: no further try."""
        now = time.monotonic()
        pause = self._back_off.next(now)
        if self._back_off.outage_s(now) > self._give_up_s:
            if error is not None:
                raise error
            return None
        return pause


def _is_chat(request: httpx2.Request) -> bool:
    return request.method == "POST" and request.url.path.endswith("/chat/completions")


def _is_stream(response: httpx2.Response) -> bool:
    return response.status_code == 200 and EVENT_STREAM in response.headers.get("content-type", "")


def _broken() -> httpx2.RemoteProtocolError:
    return httpx2.RemoteProtocolError("the stream ended before its end")


class ResumingTransport(httpx2.BaseTransport):
    """For `OpenAI`.

    Args:
        inner: the transport below; default: one of httpx2's.
        give_up_s: give up after so long without any connection.
        random: returns a number from 0 to below 1, for the jitter.
    """

    def __init__(
        self,
        inner: httpx2.BaseTransport | None = None,
        *,
        give_up_s: float = GIVE_UP_S,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._inner = inner or httpx2.HTTPTransport()
        self._give_up_s = give_up_s
        self._random = random

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if not _is_chat(request):
            return self._inner.handle_request(request)
        attempts = _Attempts(request, request.read(), self._random, self._give_up_s)
        response = self._open(attempts)
        if not _is_stream(response):
            return response
        body = _Body(self._blocks(attempts, response))
        return httpx2.Response(200, headers=response.headers, stream=body)

    def close(self) -> None:
        self._inner.close()

    def _open(self, attempts: _Attempts) -> httpx2.Response:
        while True:
            request, error = attempts.next_request(), None
            try:
                response = self._inner.handle_request(request)
            except httpx2.TransportError as exc:
                error = exc
            else:
                if response.status_code not in PASSING_STATUSES:
                    if _is_stream(response):
                        attempts.opened(request, response)
                    return response
            pause_s = attempts.pause_s(error)
            if pause_s is None:
                return response
            if error is None:
                response.close()
            time.sleep(pause_s)

    def _blocks(self, attempts: _Attempts, response: httpx2.Response) -> Iterator[bytes]:
        while True:
            error: httpx2.TransportError = _broken()
            try:
                for data in response.iter_raw():
                    yield from attempts.take(data)
                    if attempts.replay.is_done:
                        return
            except httpx2.TransportError as exc:
                error = exc
            finally:
                response.close()
            time.sleep(attempts.pause_s(error) or 0.0)
            response = self._open(attempts)
            if not _is_stream(response):
                response.close()
                raise error


class AsyncResumingTransport(httpx2.AsyncBaseTransport):
    """For `AsyncOpenAI`; see ResumingTransport."""

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport | None = None,
        *,
        give_up_s: float = GIVE_UP_S,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._inner = inner or httpx2.AsyncHTTPTransport()
        self._give_up_s = give_up_s
        self._random = random

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if not _is_chat(request):
            return await self._inner.handle_async_request(request)
        attempts = _Attempts(request, await request.aread(), self._random, self._give_up_s)
        response = await self._open(attempts)
        if not _is_stream(response):
            return response
        body = _AsyncBody(self._blocks(attempts, response))
        return httpx2.Response(200, headers=response.headers, stream=body)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _open(self, attempts: _Attempts) -> httpx2.Response:
        while True:
            request, error = attempts.next_request(), None
            try:
                response = await self._inner.handle_async_request(request)
            except httpx2.TransportError as exc:
                error = exc
            else:
                if response.status_code not in PASSING_STATUSES:
                    if _is_stream(response):
                        attempts.opened(request, response)
                    return response
            pause_s = attempts.pause_s(error)
            if pause_s is None:
                return response
            if error is None:
                await response.aclose()
            await asyncio.sleep(pause_s)

    async def _blocks(self, attempts: _Attempts, response: httpx2.Response) -> AsyncIterator[bytes]:
        while True:
            error: httpx2.TransportError = _broken()
            try:
                async for data in response.aiter_raw():
                    for block in attempts.take(data):
                        yield block
                    if attempts.replay.is_done:
                        return
            except httpx2.TransportError as exc:
                error = exc
            finally:
                await response.aclose()
            await asyncio.sleep(attempts.pause_s(error) or 0.0)
            response = await self._open(attempts)
            if not _is_stream(response):
                await response.aclose()
                raise error


class _Body(httpx2.SyncByteStream):
    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._blocks

    def close(self) -> None:
        self._blocks.close()  # type: ignore[attr-defined]


class _AsyncBody(httpx2.AsyncByteStream):
    def __init__(self, blocks: AsyncIterator[bytes]) -> None:
        self._blocks = blocks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for block in self._blocks:
            yield block

    async def aclose(self) -> None:
        await self._blocks.aclose()  # type: ignore[attr-defined]
