"""The common part of readers whose streams consist of lines or events (`AnswerReader`).

A subclass says what one event means; this class bounds the lines, stops after the first failure,
and ends the answer once. Does no I/O and knows no wire.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from shared.errors import BackendError
from shared.log.events import Usage
from workers.backends.contract import BackendItem, Finish
from workers.backends.reading.finish_reasons import Reason, gave_up, more_telling
from workers.backends.reading.too_long import line_too_long


class Lines(Protocol):
    """Splits bytes into lines or events: `NdjsonLines`, `SseLines`."""

    is_too_long: bool

    def feed(self, data: bytes) -> Sequence[Any]: ...

    def feed_eof(self) -> Sequence[Any]: ...


class LineReader(ABC):
    """Reads one answer, event by event.

    Args:
        lines: a fresh one.
        line_bytes_max: its limit, for the message.
        cut_message: of the failure when the stream ends without its mark of a complete answer.

    Attributes: see `AnswerReader`.
    """

    def __init__(self, lines: Lines, line_bytes_max: int, cut_message: str) -> None:
        self.is_done = False
        self.failure: BackendError | None = None
        self.warnings: set[str] = set()
        self.reason: Reason | None = None
        self._lines = lines
        self._line_bytes_max = line_bytes_max
        self._cut_message = cut_message

    @abstractmethod
    def take(self, event: Any, items: list[BackendItem]) -> None:
        """Add the items of one line or event. Raises BackendError if the answer has failed."""

    @abstractmethod
    def closing(self, items: list[BackendItem]) -> None:
        """Add the events between the last text and `Finish`: whole tool calls, counts."""

    def finish(self, reason: Reason) -> Finish:
        """Return the last item of a complete answer."""
        assert reason.outcome != "failed"
        return Finish(reason.outcome, "" if reason.is_known else reason.word)

    @property
    def has_finish_reason(self) -> bool:
        return self.reason is not None

    def take_running_usage(self) -> Usage | None:
        return None

    def feed(self, data: bytes) -> list[BackendItem]:
        items: list[BackendItem] = []
        if not self.is_done:
            self._guarded(items, self._lines.feed(data), is_eof=False)
        return items

    def feed_eof(self) -> list[BackendItem]:
        items: list[BackendItem] = []
        if not self.is_done:
            self._guarded(items, self._lines.feed_eof(), is_eof=True)
        return items

    def note_reason(self, reason: Reason) -> None:
        """Note that the server says why the answer ends.

        Raises:
            BackendError: the server has given the answer up.
        """
        if reason.outcome == "failed":
            raise gave_up(reason.word)
        self.reason = more_telling(self.reason, reason)

    def end(self, items: list[BackendItem]) -> None:
        """End the answer: the server's mark of a complete answer is here, or the stream is over.

        Raises:
            BackendError: there was no finish reason.
        """
        if self.reason is None:
            raise BackendError("upstream_error", self._cut_message)
        self.closing(items)
        items.append(self.finish(self.reason))
        self.is_done = True

    def _guarded(self, items: list[BackendItem], events: Sequence[Any], *, is_eof: bool) -> None:
        try:
            for event in events:
                self.take(event, items)
                if self.is_done:
                    return
            if self._lines.is_too_long:
                raise line_too_long(self._line_bytes_max)
            if is_eof:
                self.end(items)
        except BackendError as failure:
            self.failure, self.is_done = failure, True
