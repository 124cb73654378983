"""Batch: many requests in the background, their progress, and their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, Protocol

from tailrace_client.batches import NO_REST_STATUS, BatchLine, ResultLines, batch_path, content_path
from tailrace_client.errors import TailraceError
from tailrace_client.events import Event
from tailrace_client.options import Shared
from tailrace_client.pace import BackOff, Picker
from tailrace_client.reading import Reading
from tailrace_client.sync_http import Http
from tailrace_client.wire import resource


class BatchHost(Protocol):
    """What a batch needs of its client."""

    _shared: Shared
    _http: Http

    def _follow(
        self, id: str, reading: Reading, *, path: str = "", picker: Picker | None = None
    ) -> Generator[Event]: ...
    def _repeat(
        self, read: Callable[[Any], dict[str, Any]], method: str, path: str
    ) -> dict[str, Any]: ...


class Batch:
    """One batch; see AsyncBatch."""

    def __init__(self, client: BatchHost, id: str) -> None:
        self.id = id
        self._client = client
        self._path = batch_path(id)

    def events(self) -> Generator[Event]:
        """Yield `progress`, `data` (a line is done: `event.value`) and `end`, each once."""
        picker = self._client._shared.picker.over_http()
        yield from self._client._follow(self.id, Reading(), path=self._path, picker=picker)

    def result(self) -> dict[str, Any]:
        """Wait for the end; return the batch; see AsyncBatch.result."""
        try:
            for _ in self.events():
                pass
        except TailraceError as exc:
            if exc.code != "expired":  # the events are gone sooner than the batch
                raise
        return self.snapshot()

    def lines(self, *, errors: bool = False) -> Generator[BatchLine]:
        """Wait for the end; yield the lines that succeeded; see AsyncBatch.lines."""
        file_id = self.result().get("error_file_id" if errors else "output_file_id")
        if not file_id:
            return
        shared, lines = self._client._shared, ResultLines()
        back_off, is_whole = BackOff(shared.random), False
        while not is_whole:
            try:
                for data in self._client._http.content(content_path(file_id), lines.count):
                    back_off.progress()
                    yield from lines.feed(data)
                is_whole = True
            except TailraceError as exc:
                if exc.status == NO_REST_STATUS and lines.count:
                    return
                time.sleep(shared.pause_s(back_off, exc))

    def snapshot(self) -> dict[str, Any]:
        """Return the batch as it is now."""
        return self._client._repeat(resource, "GET", self._path)

    def cancel(self) -> dict[str, Any]:
        """End the batch, on any node. Lines that are done stay. May be repeated."""
        return self._client._repeat(resource, "POST", f"{self._path}/cancel")
