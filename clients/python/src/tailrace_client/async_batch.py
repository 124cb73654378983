"""AsyncBatch: many requests in the background, their progress, and their results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol

from tailrace_client.async_http import AsyncHttp
from tailrace_client.batches import NO_REST_STATUS, BatchLine, ResultLines, batch_path, content_path
from tailrace_client.errors import TailraceError
from tailrace_client.events import Event
from tailrace_client.options import Shared
from tailrace_client.pace import BackOff, Picker
from tailrace_client.reading import Reading
from tailrace_client.wire import resource


class AsyncBatchHost(Protocol):
    """What a batch needs of its client."""

    _shared: Shared
    _http: AsyncHttp

    def _follow(
        self, id: str, reading: Reading, *, path: str = "", picker: Picker | None = None
    ) -> AsyncGenerator[Event]: ...
    async def _repeat(
        self, read: Callable[[Any], dict[str, Any]], method: str, path: str
    ) -> dict[str, Any]: ...


class AsyncBatch:
    """One batch. It runs on the server, also when nobody waits for it.

    Attributes:
        id: the batch's id: `client.attach_batch(id)` continues anywhere.
    """

    def __init__(self, client: AsyncBatchHost, id: str) -> None:
        self.id = id
        self._client = client
        self._path = batch_path(id)

    async def events(self) -> AsyncGenerator[Event]:
        """Yield `progress`, `data` (a line is done: `event.value`) and `end`, each once.

        Raises:
            TailraceError: the batch cannot be read.
        """
        picker = self._client._shared.picker.over_http()
        async for event in self._client._follow(self.id, Reading(), path=self._path, picker=picker):
            yield event

    async def result(self) -> dict[str, Any]:
        """Wait for the end; return the batch: `status`, `request_counts`, `errors`, `usage`.

        A batch that failed, expired or was cancelled is no exception.

        Raises:
            TailraceError: the batch cannot be read.
        """
        try:
            async for _ in self.events():
                pass
        except TailraceError as exc:
            if exc.code != "expired":  # the events are gone sooner than the batch
                raise
        return await self.snapshot()

    async def lines(self, *, errors: bool = False) -> AsyncGenerator[BatchLine]:
        """Wait for the end; yield the lines that succeeded, in the order in which they were done.

        A download that breaks off continues at the byte where it broke off.

        Args:
            errors: yield the lines that failed instead.

        Raises:
            TailraceError: the batch or its file cannot be read.
        """
        batch = await self.result()
        file_id = batch.get("error_file_id" if errors else "output_file_id")
        if not file_id:
            return
        shared, lines = self._client._shared, ResultLines()
        back_off, is_whole = BackOff(shared.random), False
        while not is_whole:
            try:
                async for data in self._client._http.content(content_path(file_id), lines.count):
                    back_off.progress()
                    for line in lines.feed(data):
                        yield line
                is_whole = True
            except TailraceError as exc:
                if exc.status == NO_REST_STATUS and lines.count:
                    return
                await asyncio.sleep(shared.pause_s(back_off, exc))

    async def snapshot(self) -> dict[str, Any]:
        """Return the batch as it is now."""
        return await self._client._repeat(resource, "GET", self._path)

    async def cancel(self) -> dict[str, Any]:
        """End the batch, on any node. Lines that are done stay. May be repeated."""
        return await self._client._repeat(resource, "POST", f"{self._path}/cancel")
