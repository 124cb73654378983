"""The node as the terminal commands see it: the package tailrace_client, with errors for a person.

The package resumes streams at their cursor, repeats requests that may be repeated, and gives up
after `PATIENCE_S` without any answer. This module adds the paths that only commands ask for. It
turns the package's one error into two: a refusal, and a server that does not answer. Knows no
terminal.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx2

from cli.client.typed_name import typed_name
from tailrace_client import AsyncTailrace, Event, ForeignAnswer, TailraceError

PATIENCE_S = 60.0  # without any answer, before the client gives up
RESPONSE_S = 10.0  # for the head of an answer
ADDRESS = "is {} the address of a node? TAILRACE_URL or --url names another"

Members = dict[str, Any]  # an event as it is on the wire, with its id


class RequestRefused(Exception):
    """The server refused a request, and would refuse it again.

    Attributes:
        status: the HTTP status; 0: the refusal came over a WebSocket.
        code: the error code of docs/protocol.md; "" if the response has none.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ServerUnreachable(Exception):
    """No server answered for too long. The message says what to do."""


class Client:
    """A client of the API node at `url`; an async context manager.

    Args:
        key: the API key; "" for none.
        patience_s: how long requests are repeated without any answer.
        random: returns a number from 0 to below 1, for the pauses.

    Attributes:
        on_trouble: called with a message when a connection breaks.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        patience_s: float = PATIENCE_S,
        random: Callable[[], float] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.key = key
        self.patience_s = patience_s
        self.on_trouble: Callable[[str], None] = lambda text: None
        self._random = random
        self._has_answered = False
        self._has_events = False  # of the reading that goes on
        self._troubles = 0  # since the last answer or event

    async def __aenter__(self) -> Client:
        with self._errors():
            self._tailrace = AsyncTailrace(
                self.url,
                self.key or None,
                open_timeout_s=RESPONSE_S,
                give_up_s=self.patience_s,
                random=self._random,
                on_retry=self._again,
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._tailrace.aclose()

    async def create(self, body: dict[str, Any], key: str) -> dict[str, Any]:
        """Start a generation; returns its resource.

        Args:
            key: the idempotency key: repeated requests start one generation.

        Raises:
            RequestRefused: the server does not accept the request.
            ServerUnreachable: no server answered for `patience_s`.
        """
        return await self._persist("POST", "/v1/generations", json=body, key=key)

    async def cancel(self, generation_id: str) -> dict[str, Any]:
        """Cancel a generation; returns its resource. Raises as `create` does."""
        with self._errors():
            return await self._tailrace.cancel(generation_id)

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
        with self._errors():
            return await self._tailrace.snapshot(generation_id)

    async def timeline(self, generation_id: str) -> list[dict[str, Any]]:
        """Return the moments of a generation, the earliest first. Raises as `create` does."""
        path = f"/v1/generations/{quote(generation_id, safe='')}/timeline"
        return list((await self._persist("GET", path))["data"])

    async def metrics(self) -> str:
        """Return the metrics of the node in Prometheus's text. Raises as `create` does."""
        with self._errors():
            return str(await self._tailrace.call("GET", "/metrics", accept="text/plain"))

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
    ) -> AsyncIterator[Members]:
        """Yield the events after `cursor` until the end. Reconnects when the connection breaks.

        Args:
            cursor: an event id; "" for the start.
            on_trouble: called with a message when the connection breaks.

        Raises:
            RequestRefused: no such generation, no right to it, or past its retention.
            ServerUnreachable: nothing came for `patience_s`.
        """
        with self._errors():
            answer = self._tailrace.attach(generation_id, cursor or None)
            async for event in self._watched(answer, on_trouble):
                yield event

    async def _watched(
        self, events: AsyncIterator[Event], on_trouble: Callable[[str], None]
    ) -> AsyncIterator[Members]:
        self.on_trouble, self._has_events = on_trouble, False
        async for event in events:
            self._has_events = True
            self._has_answered, self._troubles = True, 0
            yield {"id": event.id, **event.members}

    async def _persist(
        self, method: str, path: str, *, json: Any = None, key: str = ""
    ) -> dict[str, Any]:
        """Repeat a request until it succeeds or is refused. Only for requests that may repeat."""
        headers = {"idempotency-key": key} if key else None
        with self._errors():
            found: dict[str, Any] = await self._tailrace.call(
                method, path, body=json, headers=headers
            )
        self._has_answered, self._troubles = True, 0
        return found

    def _again(self, error: TailraceError) -> None:
        """Print one message when the connection breaks.

        Before the first event the first failed try is not reported, because the network may block
        WebSockets. Then the next try is a stream over HTTP.

        Raises:
            ServerUnreachable: no server listens, or another program does, and no node has answered
                before. The user may have started none, and a wait looks like a hang.
        """
        if not self._has_answered and is_no_server(error.__cause__):
            raise ServerUnreachable(no_server(self.url)) from error
        self._troubles += 1
        # A refusal in a node's own words is an answer. A proxy may refuse WebSockets in its own.
        self._has_answered |= error.status is not None and not is_foreign(error)
        if not self._has_answered and self._troubles > 1 and is_foreign(error):
            raise ServerUnreachable(f"{error.message}; {ADDRESS.format(self.url)}") from error
        if self._troubles == (1 if self._has_events else 2):
            self.on_trouble(f"connection lost ({error.message}), coming back")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the errors of the package into those of this module."""
        try:
            yield
        except TailraceError as exc:
            if exc.code == "usage":
                message = f"{self.url} is not a URL: set TAILRACE_URL or --url"
                raise ServerUnreachable(message) from exc
            if exc.retryable:
                message = f"gave up on {self.url} after {self.patience_s:.0f} s: {exc.message}"
                raise ServerUnreachable(message) from exc
            raise RequestRefused(exc.status or 0, exc.code, exc.message) from exc


def is_foreign(error: TailraceError) -> bool:
    """Return whether another program than a node answered, and no proxy whose node is away."""
    is_proxy = (error.status or 0) in (500, 502, 503, 504)
    return isinstance(error, ForeignAnswer) and not is_proxy


def is_no_server(cause: BaseException | None) -> bool:
    """Return whether nobody listens at an address: no silence, and no connection that broke."""
    has_connected = isinstance(cause, TimeoutError | ConnectionResetError | BrokenPipeError)
    return isinstance(cause, httpx2.ConnectError | OSError) and not has_connected


def no_server(url: str) -> str:
    """Return the message for an address where no server listens."""
    start = f"start one with `{typed_name()} up`"
    return f"no server answers at {url}: {start}, or set TAILRACE_URL or --url"
