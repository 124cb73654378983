"""Tailrace, the client without an event loop: the twin of AsyncTailrace."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet

import httpx2

from tailrace_client.audio import audio_member
from tailrace_client.batches import ENDPOINT, WINDOW, Requests, form_of, input_of
from tailrace_client.credentials import Credentials, SyncTokenSource
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
from tailrace_client.sync_answer import Answer
from tailrace_client.sync_audio import send_audio
from tailrace_client.sync_batch import Batch
from tailrace_client.sync_http import Http
from tailrace_client.sync_producer import Producer
from tailrace_client.sync_socket import Sockets
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


class Tailrace:
    """A client of one server, for one thread. Use as a context manager, or call `close`.

    The arguments are those of AsyncTailrace; a token function is not async here.
    """

    def __init__(
        self,
        url: str,
        token: SyncTokenSource = None,
        transport: str = "auto",
        *,
        http: httpx2.Client | None = None,
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
        client = http or httpx2.Client(**client_options(self._shared))
        self._owned = None if http else client
        self._http = Http(self._shared, credentials, client)
        self._sockets = Sockets(self._shared, credentials, self._http)
        self._answers: WeakSet[Answer] = WeakSet()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Generations go on."""
        for answer in list(self._answers):
            answer.close()
        if self._owned is not None:
            self._owned.close()

    def generate(
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
    ) -> Answer:
        """Start a generation. Returns when it is accepted; a retry never starts a second one."""
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
        accepted = self._repeat(resource, "POST", "/v1/generations", body=body, headers=headers)
        return self.attach(accepted["id"])

    def attach(self, id: str, cursor: str | None = None) -> Answer:
        """Read a generation from its start, or after an event id that another reader has seen."""
        answer = Answer(self, id, check_cursor(cursor))
        self._answers.add(answer)
        return answer

    def batch(
        self,
        requests: Requests,
        *,
        endpoint: str = ENDPOINT,
        window: str = WINDOW,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Batch:
        """Run many requests in the background; see AsyncTailrace.batch."""
        data = input_of(requests, endpoint)
        file = self._repeat(resource, "POST", "/v1/files", form=form_of(data))
        body = start_body(
            {
                "input_file_id": file["id"],
                "endpoint": endpoint,
                "completion_window": window,
                "metadata": metadata,
            }
        )
        headers = {"idempotency-key": idempotency_key or new_key()}
        created = self._repeat(resource, "POST", "/v1/batches", body=body, headers=headers)
        return self.attach_batch(created["id"])

    def attach_batch(self, id: str) -> Batch:
        """Return a batch that was started anywhere."""
        return Batch(self, id)

    def produce(
        self,
        *,
        model: str | None = None,
        take_over: str | None = None,
        reset: bool = False,
        lease_s: float | None = None,
        idempotency_key: str | None = None,
        **members: Any,
    ) -> Producer:
        """Return a producer: the caller writes the answer. Enter it to begin.

        Args:
            take_over: the id of a generation whose producer is gone: begin its next attempt.
            reset: with `take_over`: the answer begins anew.
            lease_s: the generation fails if this producer is silent for longer, s.
            members: further members of a start: `prompt`, `messages`, `session`, `metadata`, …
        """
        body = begin_body({"model": model, **members}, lease_s)
        headers = {"idempotency-key": idempotency_key or new_key()}

        def begin() -> Mapping[str, Any]:
            if take_over is not None:
                path = f"{generation_path(take_over)}/producer"
                return self._repeat(resource, "POST", path, body={"reset": reset})
            return self._repeat(resource, "POST", "/v1/generations", body=body, headers=headers)

        return Producer(self._shared, self._http.json, begin)

    def send_audio(self, id: str, audio: Iterable[bytes]) -> None:
        """Send the audio of a generation that was started with `audio`; return at its end.

        Each piece of `audio` leaves as one chunk (of at most 64 KiB), and waits until the server
        takes it. After a lost connection the client sends the unconfirmed chunks again. The server
        stores each chunk once.

        Args:
            audio: yields bytes, for example of a microphone.

        Raises:
            TailraceError: `generation_ended`, … or no node answered for long.
        """
        send_audio(self._shared, self._http.json, id, audio)

    def cancel(self, id: str) -> dict[str, Any]:
        """End a generation. May be repeated."""
        return self._repeat(resource, "POST", f"{generation_path(id)}/cancel")

    def snapshot(self, id: str) -> dict[str, Any]:
        """Return the current state of a generation, with its text so far."""
        return self._repeat(resource, "GET", generation_path(id))

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        form: Any = None,
        headers: Mapping[str, str] | None = None,
        accept: str = JSON_TYPE,
    ) -> Any:
        """Send a request for which this class has no method; see AsyncTailrace.call."""
        told = {"body": body, "form": form, "headers": headers, "accept": accept}
        return self._repeat(lambda found: found, method, path, **told)

    def _repeat(self, read: Callable[[Any], T], method: str, path: str, **told: Any) -> T:
        """Repeat a request until a node has answered it, and `read` takes the answer for one."""
        back_off = BackOff(self._shared.random)
        while True:
            try:
                return read(self._http.json(method, path, **told))
            except TailraceError as exc:
                pause_s = self._shared.pause_s(back_off, exc)
            time.sleep(pause_s)

    def _follow(
        self, id: str, reading: Reading, *, path: str = "", picker: Picker | None = None
    ) -> Generator[Event]:
        """Yield the new events to the end, over as many connections as that takes.

        Args:
            path: of the log; default: that of the generation.
            picker: chooses the transports; default: the client's.
        """
        following = Following(self._shared, id, reading, path=path, picker=picker)
        probe_s: float | None = PROBE_S if self._shared.is_auto else None
        while not reading.is_done:
            error: TailraceError | None = None
            asked = following.connect()
            try:
                with closing(self._read(following.transport, asked, probe_s)) as items:
                    for item in items:
                        if following.take(item) and item is not None:
                            probe_s = None  # this network does not hold events back
                            yield item
                            if reading.is_done:
                                return
            except TailraceError as exc:
                error = exc
            if reading.is_done:
                return
            is_held_back = False
            if error is not None and error.code == "silent":
                probe_s = probe_s and probe_s * 2
                is_held_back = self._is_held_back(asked)
            time.sleep(following.pause_s(error, is_held_back=is_held_back))

    def _read(
        self, name: str, asked: ReadRequest, probe_s: float | None
    ) -> Generator[Event | None]:
        if name == "websocket":
            yield from self._sockets.read(asked)
        elif name == "poll":
            yield from self._http.read_polls(asked)
        else:
            # Without a second thread a silent stream is left for one poll, and opened again.
            is_probing = probe_s is not None and probe_s < self._shared.heartbeat.silence_max_s
            yield from self._http.read(name, asked, silence_s=probe_s if is_probing else None)

    def _is_held_back(self, asked: ReadRequest) -> bool:
        try:
            events, _, is_done = self._http.poll(asked, asked.cursor, 0)
        except TailraceError:
            return False
        return bool(events) or is_done
