"""The frame of every reader of an event stream: bytes, lines, failures, the end of an answer.

Invariant: `Finish` comes only after a finish reason, once and last. The first error in the stream
ends it; events after it are ignored. The result does not depend on how the bytes are cut.
Does no I/O, knows no clock and no wire: a subclass reads the events.
"""

from __future__ import annotations

from shared.errors import BackendError
from shared.log.events import Reasoning, Token, Usage
from shared.text.json_values import is_json
from workers.backends.contract import BackendItem, Finish
from workers.backends.reading.chunk_template import ChunkTemplate
from workers.backends.reading.facts import Facts
from workers.backends.reading.finish_reasons import Reason, gave_up, more_telling
from workers.backends.reading.half_pairs import CONTENT, REASONING, HalfPairs
from workers.backends.reading.opening import Opening
from workers.backends.reading.sse_lines import SseLines
from workers.backends.reading.too_long import line_too_long


class StreamReader:
    """Parses one answer. A subclass defines the methods below "For subclasses".

    Args:
        line_bytes_max: longest line of the stream, bytes.
        body_bytes_max: longest answer that comes as one JSON document, bytes.

    Attributes:
        is_done: nothing more is parsed: `Finish` was returned, or `failure` is set.
        failure: raise it after the events returned so far have been passed on.
        warnings: names of the repairs and omissions.
    """

    def __init__(self, *, line_bytes_max: int, body_bytes_max: int) -> None:
        self.is_done = False
        self.failure: BackendError | None = None
        self.warnings: set[str] = set()
        self._lines = SseLines(line_bytes_max)
        self._line_bytes_max = line_bytes_max
        self._opening = Opening(body_bytes_max)
        self._reason: Reason | None = None
        self._halves = HalfPairs()
        self._facts = Facts()
        self._template: ChunkTemplate | None = None  # of an event that says only a text

    @property
    def has_finish_reason(self) -> bool:
        """Whether the answer is complete; only usage or the end of the body may follow."""
        return self._reason is not None

    def feed(self, data: bytes) -> list[BackendItem]:
        """Return the events that `data` completes, in order."""
        items: list[BackendItem] = []
        if self.is_done:
            return items
        if self._template is not None and self._lines.is_between_events(len(data)):
            text = self._template.text_of_event(data)
            if text is not None:  # the usual case
                self._add_plain(text, items)
                return items
        try:
            data = self._opening.trim(data)
            if not self._opening.keep(data):
                self._feed_lines(data, items)
        except BackendError as failure:
            self._fail(failure)
        return items

    def feed_eof(self) -> list[BackendItem]:
        """Handle the end of the body: return the last events with `Finish`, or set `failure`."""
        items: list[BackendItem] = []
        if self.is_done:
            return items
        try:
            if (document := self._opening.document) is not None:
                self._read_document(document, items)
            else:
                # No blank line has closed the last event. After the finish reason an incomplete
                # event is ignored.
                for name, payload in self._lines.feed_eof():
                    if self._reason is None or is_json(payload):
                        self._take_payload(name, payload, items)
            if not self.is_done:
                self._end(items)
        except BackendError as failure:
            self._fail(failure)
        return items

    # For subclasses

    def _add_plain(self, text: str, items: list[BackendItem]) -> None:
        """Add the text of an event that fits the template."""
        raise NotImplementedError

    def _take_payload(self, name: bytes, payload: bytes, items: list[BackendItem]) -> None:
        """Turn the data of one SSE event into items."""
        raise NotImplementedError

    def _read_document(self, document: bytes, items: list[BackendItem]) -> None:
        """Read a body that is one JSON document or a page."""
        raise NotImplementedError

    def _usage_event(self) -> Usage | None:
        """Return the counts of the answer; None: the server has reported none."""
        raise NotImplementedError

    @property
    def _has_tool_calls(self) -> bool:
        raise NotImplementedError

    def _last_items(self) -> list[BackendItem]:
        """Return what waits for the end of the answer, beside halves of characters."""
        return []

    # The end

    def _conclude(self, reason: Reason) -> None:
        """Note a finish reason.

        Raises:
            BackendError: the reason means that the server gave up.
        """
        if reason.outcome == "failed":
            raise gave_up(reason.word)
        self._reason = more_telling(self._reason, reason)

    def _end(self, items: list[BackendItem], message: str = "") -> None:
        """Add the events that wait, usage and `Finish`.

        Args:
            message: of the error; empty: what the body was instead of a whole answer.

        Raises:
            BackendError: the answer has no finish reason, so it broke off.
        """
        if self._reason is None:
            raise BackendError("upstream_error", message or self._opening.describe_end())
        for place, kind in ((REASONING, Reasoning), (CONTENT, Token)):
            if text := self._halves.release(place):
                items.append(kind(text))
        items += self._last_items()
        if self._halves.has_lone:
            self.warnings.add("lone_surrogate")
        if (usage := self._usage_event()) is not None:
            items.append(usage)
        items.append(self._finish(self._reason))
        self.is_done = True

    def _finish(self, reason: Reason) -> Finish:
        assert reason.outcome != "failed"
        is_stop = reason.outcome == "stop" and self._has_tool_calls
        outcome = "tool_calls" if is_stop else reason.outcome
        # Clients get an unknown word unchanged.
        name = "native_finish_reason" if reason.is_known or is_stop else "finish_reason"
        if reason.word != outcome and not self._facts.has("choice", name):
            self._facts.add("choice", {name: reason.word})
        return Finish(outcome, "" if reason.is_known else reason.word, self._facts.take() or None)

    def _fail(self, failure: BackendError) -> None:
        self.failure = failure
        self.is_done = True

    # Lines

    def _feed_lines(self, data: bytes, items: list[BackendItem]) -> None:
        for name, payload in self._lines.feed(data):
            self._take_payload(name, payload, items)
            if self.is_done:
                return
        if self._lines.is_too_long:
            raise line_too_long(self._line_bytes_max)
