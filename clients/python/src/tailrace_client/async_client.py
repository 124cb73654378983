"""AsyncTailrace: starts generations and batches, and attaches to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet

import httpx2

from tailrace_client.async_answer import AsyncAnswer
from tailrace_client.async_audio import AsyncAudio, send_audio
from tailrace_client.async_batch import AsyncBatch
from tailrace_client.async_http import AsyncHttp
from tailrace_client.async_producer import AsyncProducer
from tailrace_client.async_socket import AsyncSockets
from tailrace_client.audio import audio_member
from tailrace_client.batches import ENDPOINT, WINDOW, Requests, form_of, input_of
from tailrace_client.credentials import Credentials, TokenSource
from tailrace_client.errors import TailraceError
from tailrace_client.events import Event
from tailrace_client.following import Following
from tailrace_client.options import (
    GIVE_UP_S,
    OPEN_TIMEOUT_S,
    OnRetry,
    client_options,
    shared_options,
)
from tailrace_client.pace import BackOff, Picker
from tailrace_client.producing import begin_body
from tailrace_client.reading import Reading
from tailrace_client.request import ReadRequest
from tailrace_client.wire import (
    JSON_TYPE,
    check_cursor,
    generation_path,
    new_key,
    resource,
    start_body,
)

T = TypeVar("T")
PROBE_S = 4.0  # a stream silent for so long: one poll asks whether a proxy holds its events back
PROBE_MAX_S = 60.0


class AsyncTailrace:
    """A client of one server. Use as an async context manager, or call `aclose`.

    Args:
        url: of the server, with or without `/v1`.
        token: an API key, or a function, async or not, that returns one; the client calls it again
            after a refusal.
        transport: `auto` (WebSocket, else a stream over HTTP, else long poll), `websocket`, `sse`,
            `ndjson` or `poll`.
        http: a client of httpx2 to use for HTTP; the caller closes it.
        open_timeout_s: the longest wait for the head of an answer.
        give_up_s: give up after so long without any connection.
        random: returns a number from 0 to below 1, for the jitter.
        clock: returns seconds. Default: a clock that does not go back.
        on_retry: called with each error after which the client waits and tries again. What it
            raises ends the call.
    """

    def __init__(
        self,
        url: str,
        token: TokenSource = None,
        transport: str = "auto",
        *,
        http: httpx2.AsyncClient | None = None,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        give_up_s: float = GIVE_UP_S,
        random: Callable[[], float] | None = None,
        clock: Callable[[], float] | None = None,
        on_retry: OnRetry | None = None,
    ) -> None:
        self._shared = shared_options(
            url,
            transport,
            open_timeout_s=open_timeout_s,
            give_up_s=give_up_s,
            random=random,
            clock=clock,
            on_retry=on_retry,
        )
        credentials = Credentials(token)
        self._owned = None if http else httpx2.AsyncClient(**client_options(self._shared))
        self._http = AsyncHttp(self._shared, credentials, http or self._client())
        self._sockets = AsyncSockets(self._shared, credentials, self._http)
        self._answers: WeakSet[AsyncAnswer] = WeakSet()

    def _client(self) -> httpx2.AsyncClient:
        assert self._owned is not None
        return self._owned

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. Generations go on."""
        for answer in list(self._answers):
            await answer.aclose()
        await self._sockets.close()
        if self._owned is not None:
            await self._owned.aclose()

    async def generate(
        self,
        *,
        prompt: str | None = None,
        messages: Sequence[Mapping[str, Any]] | None = None,
        model: str | None = None,
        params: Mapping[str, Any] | None = None,
        session: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        priority: str | None = None,
        on_disconnect: str | float | None = None,
        queue_wait_s: float | None = None,
        deadline_s: float | None = None,
        webhook: Mapping[str, Any] | None = None,
        audio: str | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncAnswer:
        """Start a generation. Returns when it is accepted; a retry never starts a second one.

        Args:
            audio: media type of the audio that `send_audio` will send; then the prompt may be left
                out.
            idempotency_key: two calls with the same key are one generation. Default: a random key.

        Raises:
            TailraceError: `retryable` says whether the same call may succeed later.
        """
        body = start_body(
            {
                "prompt": prompt,
                "messages": messages,
                "model": model,
                "params": params,
                "session": session,
                "metadata": metadata,
                "priority": priority,
                "on_disconnect": on_disconnect,
                "queue_wait_s": queue_wait_s,
                "deadline_s": deadline_s,
                "webhook": webhook,
                "audio": audio_member(audio),
            }
        )
        headers = {"idempotency-key": idempotency_key or new_key()}
        accepted = await self._repeat(
            resource, "POST", "/v1/generations", body=body, headers=headers
        )
        return self.attach(accepted["id"])

    def attach(self, id: str, cursor: str | None = None) -> AsyncAnswer:
        """Read a generation from its start, or after an event id that another reader has seen.

        Raises:
            TailraceError: `cursor_invalid`.
        """
        answer = AsyncAnswer(self, id, check_cursor(cursor))
        self._answers.add(answer)
        return answer

    async def batch(
        self,
        requests: Requests,
        *,
        endpoint: str = ENDPOINT,
        window: str = WINDOW,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncBatch:
        """Run many requests in the background; returns when the batch is accepted.

        Args:
            requests: request bodies of the endpoint, 1 to 50,000; a mapping also names each line.
            endpoint: `/v1/generations`, `/v1/chat/completions` or `/v1/responses`.
            window: the longest time for the whole batch: `24h`, or a number of s, m, h or d.
            idempotency_key: two calls with the same key are one batch. Default: a random key.

        Raises:
            TailraceError: `retryable` says whether the same call may succeed later.
        """
        data = input_of(requests, endpoint)
        file = await self._repeat(resource, "POST", "/v1/files", form=form_of(data))
        body = start_body(
            {
                "input_file_id": file["id"],
                "endpoint": endpoint,
                "completion_window": window,
                "metadata": metadata,
            }
        )
        headers = {"idempotency-key": idempotency_key or new_key()}
        created = await self._repeat(resource, "POST", "/v1/batches", body=body, headers=headers)
        return self.attach_batch(created["id"])

    def attach_batch(self, id: str) -> AsyncBatch:
        """Return a batch that was started anywhere."""
        return AsyncBatch(self, id)

    def produce(
        self,
        *,
        model: str | None = None,
        take_over: str | None = None,
        reset: bool = False,
        lease_s: float | None = None,
        idempotency_key: str | None = None,
        **members: Any,
    ) -> AsyncProducer:
        """Return a producer: the caller writes the answer. Enter it to begin.

        Args:
            take_over: the id of a generation whose producer is gone: begin its next attempt.
            reset: with `take_over`: the answer begins anew.
            lease_s: the generation fails if this producer is silent for longer, s.
            members: further members of a start: `prompt`, `messages`, `session`, `metadata`, …
        """
        body = begin_body({"model": model, **members}, lease_s)
        headers = {"idempotency-key": idempotency_key or new_key()}

        async def begin() -> Mapping[str, Any]:
            if take_over is not None:
                path = f"{generation_path(take_over)}/producer"
                return await self._repeat(resource, "POST", path, body={"reset": reset})
            return await self._repeat(
                resource, "POST", "/v1/generations", body=body, headers=headers
            )

        return AsyncProducer(self._shared, self._http.json, begin)

    async def send_audio(self, id: str, audio: AsyncAudio) -> None:
        """Send the audio of a generation that was started with `audio`; return at its end.

        Each piece of `audio` leaves as one chunk (of at most 64 KiB), and waits until the server
        takes it. After a lost connection the client sends the unconfirmed chunks again. The server
        stores each chunk once.

        Args:
            audio: yields bytes, for example of a microphone.

        Raises:
            TailraceError: `generation_ended`, … or no node answered for long.
        """
        await send_audio(self._shared, self._http.json, id, audio)

    async def cancel(self, id: str) -> dict[str, Any]:
        """End a generation. May be repeated."""
        return await self._repeat(resource, "POST", f"{generation_path(id)}/cancel")

    async def snapshot(self, id: str) -> dict[str, Any]:
        """Return the current state of a generation, with its text so far."""
        return await self._repeat(resource, "GET", generation_path(id))

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        form: Any = None,
        headers: Mapping[str, str] | None = None,
        accept: str = JSON_TYPE,
    ) -> Any:
        """Send a request for which this class has no method, until a node has answered it.

        Only for requests that may be repeated: a `POST` that starts something needs the header
        `idempotency-key`. `body` is sent as JSON, `form` as the parts of a multipart body, as
        httpx2 takes them. Returns the JSON of the answer, or its text if `accept` is another type.

        Raises:
            TailraceError: `retryable` says whether the same call may succeed later.
        """
        told = {"body": body, "form": form, "headers": headers, "accept": accept}
        return await self._repeat(lambda found: found, method, path, **told)

    async def _repeat(self, read: Callable[[Any], T], method: str, path: str, **told: Any) -> T:
        """Repeat a request until a node has answered it, and `read` takes the answer for one."""
        back_off = BackOff(self._shared.random)
        while True:
            try:
                return read(await self._http.json(method, path, **told))
            except TailraceError as exc:
                pause_s = self._shared.pause_s(back_off, exc)
            await asyncio.sleep(pause_s)

    async def _follow(
        self, id: str, reading: Reading, *, path: str = "", picker: Picker | None = None
    ) -> AsyncGenerator[Event]:
        """Yield the new events to the end, over as many connections as that takes.

        Args:
            path: of the log; default: that of the generation.
            picker: chooses the transports; default: the client's.
        """
        following = Following(self._shared, id, reading, path=path, picker=picker)
        while not reading.is_done:
            error: TailraceError | None = None
            asked = following.connect()
            try:
                async with contextlib.aclosing(self._probed(following.transport, asked)) as items:
                    async for item in items:
                        if following.take(item) and item is not None:
                            yield item
                            if reading.is_done:
                                return
            except TailraceError as exc:
                error = exc
            if not reading.is_done:
                is_held_back = error is not None and error.code == "held_back"
                await asyncio.sleep(following.pause_s(error, is_held_back=is_held_back))

    def _read(self, name: str, asked: ReadRequest) -> AsyncIterator[Event | None]:
        if name == "websocket":
            return self._sockets.read(asked)
        if name == "poll":
            return self._http.read_polls(asked)
        return self._http.read(name, asked)

    async def _probed(self, name: str, asked: ReadRequest) -> AsyncGenerator[Event | None]:
        """Read; while a stream has no events, ask by polls whether a proxy holds them back.

        Raises:
            TailraceError: `held_back`, another transport has what this one does not deliver.
        """
        is_probing = self._shared.is_auto and name != "poll"
        probe_s = PROBE_S
        items = self._read(name, asked)
        task: asyncio.Task[Event | None] | None = None
        try:
            while True:
                task = task or asyncio.ensure_future(anext(items))
                if is_probing:
                    await asyncio.wait({task}, timeout=probe_s)
                    if not task.done():
                        probe_s = min(probe_s * 2, PROBE_MAX_S)
                        if await self._is_held_back(asked) and not task.done():
                            raise TailraceError(
                                "held_back", "a proxy holds the stream back", retryable=True
                            )
                        continue
                try:
                    item = await task
                except StopAsyncIteration:
                    return
                task = None
                is_probing = is_probing and item is None
                yield item
        finally:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, TailraceError):
                    await task
            await items.aclose()  # type: ignore[attr-defined]

    async def _is_held_back(self, asked: ReadRequest) -> bool:
        try:
            events, _, is_done = await self._http.poll(asked, asked.cursor, 0)
        except TailraceError:
            return False  # the limits on silence decide about this connection
        return bool(events) or is_done
