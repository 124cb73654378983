"""Producer: as AsyncProducer (async_producer.py), for programs without an event loop.

A thread sends the events and renews the lease, so that the caller may compute for long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
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

Json = Callable[..., Any]
Begin = Callable[[], Mapping[str, Any]]


class Writer:
    """The events that a producer may write, in the name of one agent or of none."""

    def __init__(self, write: Callable[[str, Mapping[str, Any]], None], agent: str) -> None:
        self._write = write
        self._agent = agent

    def token(self, text: str) -> None:
        """Write a piece of the answer. Waits only while much is written that was not sent yet."""
        if text:
            self._write("token", {"text": text, "agent": self._agent})

    def reasoning(self, text: str) -> None:
        if text:
            self._write("reasoning", {"text": text, "agent": self._agent})

    def progress(self, stage: str, current: int, total: int) -> None:
        members = {"stage": stage, "current": current, "total": total, "agent": self._agent}
        self._write("progress", members)

    def data(self, name: str, value: Any) -> None:
        """Write any JSON value."""
        self._write("data", {"name": name, "value": value, "agent": self._agent})


class Producer(Writer):
    """A generation whose answer the caller writes. Use as a context manager; see AsyncProducer."""

    journal: Journal

    def __init__(self, shared: Shared, json: Json, begin: Begin) -> None:
        super().__init__(self._take, "")
        self._shared = shared
        self._json = json
        self._begin = begin
        self._changed = threading.Condition()  # guards the journal
        self._is_closed = False
        self._thread: threading.Thread | None = None

    @property
    def id(self) -> str:
        return self.journal.id

    @property
    def status(self) -> str:
        """The status of the generation, as far as this producer has been told."""
        return self.journal.status

    def __enter__(self) -> Self:
        self.journal = Journal(self._begin())
        self._thread = threading.Thread(target=self._send, name="tailrace-producer", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        is_cancelled = isinstance(exc, KeyboardInterrupt | GeneratorExit)
        try:
            if self.journal.error is None and not self.journal.has_end:
                self._take("end", end_of(exc, is_cancelled=is_cancelled))
            if exc is None:
                self.flush()
            else:
                self._wait(lambda: self.journal.is_settled, LEAVE_S)
        finally:
            self.close()

    def agent(self, name: str) -> Writer:
        """Return a writer whose events carry the name of an agent."""
        return Writer(self._take, name)

    def end(self, status: str = "completed", **members: Any) -> None:
        """Write the `end`: `completed`, `cancelled`, or `failed` with an `error`."""
        self._take("end", {"status": status, **members})
        self.flush()

    def flush(self) -> None:
        """Wait until the log has everything that was written.

        Raises:
            TailraceError: `generation_ended`, `producer_fenced`, … or no node answered for long.
        """
        self._wait(lambda: self.journal.is_settled)
        if self.journal.error is not None:
            raise self.journal.error

    def close(self) -> None:
        """Stop sending. The generation goes on until its lease runs out."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _take(self, kind: str, members: Mapping[str, Any]) -> None:
        with self._changed:
            self.journal.write(kind, members)
            self._changed.notify_all()
            is_much = self.journal.waiting_bytes > WAITING_BYTES_MAX
        if is_much:
            self._wait(lambda: self.journal.waiting_bytes <= WAITING_BYTES_MAX)
            if self.journal.error is not None:
                raise self.journal.error

    def _wait(self, is_true: Callable[[], bool], timeout_s: float | None = None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: is_true() or self.journal.error is not None, timeout_s)

    def _send(self) -> None:
        journal, is_due = self.journal, self._is_due
        while True:
            with self._changed:
                if journal.is_over or self._is_closed:
                    return
                if self._changed.wait_for(is_due, journal.lease_s / 3):
                    self._changed.wait_for(lambda: self._is_closed, GATHER_S)
                append = journal.take()
            self._append(append)

    def _is_due(self) -> bool:
        return not self.journal.is_settled or self._is_closed

    def _append(self, append: Append) -> None:
        """Repeat an append until a node has answered it, or this producer is closed."""
        journal, back_off = self.journal, BackOff(self._shared.random)
        headers = {"x-producer-token": journal.token}
        path = f"{generation_path(journal.id)}/events"
        while True:
            try:
                answer = self._json("POST", path, body=append.body, headers=headers)
                with self._changed:
                    journal.accept(append, answer)
                    self._changed.notify_all()
                return
            except Exception as exc:  # the token function of the caller may raise anything
                with self._changed:
                    pause_s = journal.pause_s(self._shared, back_off, exc)
                    self._changed.notify_all()
            if pause_s is None:
                return
            with self._changed:
                if self._changed.wait_for(lambda: self._is_closed, pause_s):
                    return
