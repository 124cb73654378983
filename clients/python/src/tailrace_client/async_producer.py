"""AsyncProducer: writes the log of a generation from outside the workers of the server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from tailrace_client.options import Shared
from tailrace_client.pace import BackOff
from tailrace_client.producing import (
    GATHER_S,
    LEAVE_S,
    WAITING_BYTES_MAX,
    Append,
    Journal,
    end_of,
)
from tailrace_client.wire import generation_path

Json = Callable[..., Awaitable[Any]]
Begin = Callable[[], Awaitable[Mapping[str, Any]]]


class AsyncWriter:
    """The events that a producer may write, in the name of one agent or of none."""

    def __init__(self, write: Callable[[str, Mapping[str, Any]], Awaitable[None]], agent: str):
        self._write = write
        self._agent = agent

    async def token(self, text: str) -> None:
        """Write a piece of the answer. Waits only while much is written that was not sent yet."""
        if text:
            await self._write("token", {"text": text, "agent": self._agent})

    async def reasoning(self, text: str) -> None:
        if text:
            await self._write("reasoning", {"text": text, "agent": self._agent})

    async def progress(self, stage: str, current: int, total: int) -> None:
        members = {"stage": stage, "current": current, "total": total, "agent": self._agent}
        await self._write("progress", members)

    async def data(self, name: str, value: Any) -> None:
        """Write any JSON value."""
        await self._write("data", {"name": name, "value": value, "agent": self._agent})


class AsyncProducer(AsyncWriter):
    """A generation whose answer the caller writes. Use as an async context manager.

    Events leave in the background, joined to appends; the lease is renewed meanwhile. Each append
    is repeated until a node has answered it, and nothing is written twice. The block ends the
    generation: `completed`, or `failed` with `producer_error` if an exception leaves the block.

    Attributes:
        journal: holds `id`, `attempt`, `token`, `status` and `last_event_id`.
    """

    journal: Journal

    def __init__(self, shared: Shared, json: Json, begin: Begin) -> None:
        super().__init__(self._take, "")
        self._shared = shared
        self._json = json
        self._begin = begin
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._sender: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        return self.journal.id

    @property
    def status(self) -> str:
        """The status of the generation, as far as this producer has been told."""
        return self.journal.status

    async def __aenter__(self) -> Self:
        self.journal = Journal(await self._begin())
        self._sender = asyncio.create_task(self._send())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        is_cancelled = isinstance(exc, asyncio.CancelledError | GeneratorExit)
        try:
            if self.journal.error is None and not self.journal.has_end:
                await self._take("end", end_of(exc, is_cancelled=is_cancelled))
            if exc is None:
                await self.flush()
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._settled(), LEAVE_S)
        finally:
            await self.aclose()

    def agent(self, name: str) -> AsyncWriter:
        """Return a writer whose events carry the name of an agent."""
        return AsyncWriter(self._take, name)

    async def end(self, status: str = "completed", **members: Any) -> None:
        """Write the `end`: `completed`, `cancelled`, or `failed` with an `error`."""
        await self._take("end", {"status": status, **members})
        await self.flush()

    async def flush(self) -> None:
        """Wait until the log has everything that was written.

        Raises:
            TailraceError: `generation_ended`, `producer_fenced`, … or no node answered for long.
        """
        await self._settled()
        if self.journal.error is not None:
            raise self.journal.error

    async def aclose(self) -> None:
        """Stop sending. The generation goes on until its lease runs out."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)

    async def _take(self, kind: str, members: Mapping[str, Any]) -> None:
        self.journal.write(kind, members)
        self._wake.set()
        if self.journal.waiting_bytes > WAITING_BYTES_MAX:
            await self._wait(lambda: self.journal.waiting_bytes <= WAITING_BYTES_MAX)
            if self.journal.error is not None:
                raise self.journal.error

    async def _settled(self) -> None:
        await self._wait(lambda: self.journal.is_settled)

    async def _wait(self, is_true: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: is_true() or self.journal.error is not None)

    async def _send(self) -> None:
        journal = self.journal
        while not journal.is_over:
            try:
                async with asyncio.timeout(journal.lease_s / 3):
                    await self._wake.wait()
                    await asyncio.sleep(GATHER_S)
            except TimeoutError:
                pass  # an append without events extends the lease
            self._wake.clear()
            await self._append(journal.take())
            if not journal.is_settled:
                self._wake.set()
            async with self._changed:
                self._changed.notify_all()

    async def _append(self, append: Append) -> None:
        """Repeat an append until a node has answered it."""
        journal, back_off = self.journal, BackOff(self._shared.random)
        headers = {"x-producer-token": journal.token}
        path = f"{generation_path(journal.id)}/events"
        while True:
            try:
                answer = await self._json("POST", path, body=append.body, headers=headers)
                journal.accept(append, answer)
                return
            except Exception as exc:  # the token function of the caller may raise anything
                pause_s = journal.pause_s(self._shared, back_off, exc)
            if pause_s is None:
                return
            await asyncio.sleep(pause_s)
