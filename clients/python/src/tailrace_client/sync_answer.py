"""Answer: one generation, as its reader holds it; the twin of AsyncAnswer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

from tailrace_client.errors import reset_error
from tailrace_client.events import Event, ResetEvent
from tailrace_client.reading import Reading, Result, result_of


class AnswerHost(Protocol):
    """What an answer needs of its client."""

    def cancel(self, id: str) -> dict[str, Any]: ...
    def snapshot(self, id: str) -> dict[str, Any]: ...
    def _follow(self, id: str, reading: Reading) -> Generator[Event]: ...


class Answer:
    """One generation, as its reader holds it. Iterate over its events once, or take the result.

    Attributes:
        id: the generation's id: `client.attach(id)` reads it anywhere.
    """

    def __init__(self, client: AnswerHost, id: str, cursor: str) -> None:
        self.id = id
        self._client = client
        self._reading = Reading(cursor)
        self._delivered = cursor
        self._has_iterated = False
        self._queue: deque[Event] = deque()
        self._source: Generator[Event] | None = None
        self._result: Result | None = None

    @property
    def cursor(self) -> str:
        """The id of the last event that the consumer got; `0-0` before the first one."""
        return self._delivered if self._has_iterated else self._reading.cursor

    @property
    def text_so_far(self) -> str:
        """The text, as far as this reader has read it."""
        return "".join(self._reading.text)

    def __iter__(self) -> Iterator[Event]:
        """Events in order, each once; the last one is `end`. To stop iterating does not cancel."""
        return self

    def __next__(self) -> Event:
        self._has_iterated = True
        while not self._queue:
            if self._reading.is_done:
                raise StopIteration
            self._pull()
        event = self._queue.popleft()
        self._delivered = event.id
        return event

    def text(self, *, on_reset: Callable[[ResetEvent], object] | None = None) -> Generator[str]:
        """Yield the pieces of the text; see AsyncAnswer.text."""
        has_text = False
        for event in self:
            if event.type == "token":
                has_text = True
                yield event.text
            elif event.type == "reset":
                if on_reset is not None:
                    on_reset(event)
                elif has_text:
                    raise reset_error()

    def result(self) -> Result:
        """Return the whole answer at its end; see AsyncAnswer.result."""
        while not self._reading.is_done:
            self._pull()
        if self._result is None:
            result = self._reading.result(self.id)
            self._result = result or result_of(self._client.snapshot(self.id))
        self._queue.clear()
        self._delivered = self._reading.cursor
        return self._result

    def cancel(self) -> dict[str, Any]:
        """End the generation, on any node. The text so far stays. May be repeated."""
        return self._client.cancel(self.id)

    def close(self) -> None:
        """Close the connection. The generation goes on, and so can this answer."""
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def _pull(self) -> None:
        """Read until there is one more event, or the end."""
        if self._source is None:
            self._source = self._client._follow(self.id, self._reading)
        try:
            self._queue.append(next(self._source))
        except StopIteration:
            self._source = None
        except BaseException:
            # After an error the next call opens another connection.
            self._source = None
            raise
