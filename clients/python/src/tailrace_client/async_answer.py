"""AsyncAnswer: one generation, as its reader holds it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Protocol

from tailrace_client.errors import reset_error
from tailrace_client.events import Event, ResetEvent
from tailrace_client.reading import Reading, Result, result_of

OnReset = Callable[[ResetEvent], object]


class AsyncAnswerHost(Protocol):
    """What an answer needs of its client."""

    async def cancel(self, id: str) -> dict[str, Any]: ...
    async def snapshot(self, id: str) -> dict[str, Any]: ...
    def _follow(self, id: str, reading: Reading) -> AsyncGenerator[Event]: ...


class AsyncAnswer:
    """One generation, as its reader holds it. Iterate over its events once, or take the result.

    Attributes:
        id: the generation's id: `client.attach(id)` reads it anywhere.
    """

    def __init__(self, client: AsyncAnswerHost, id: str, cursor: str) -> None:
        self.id = id
        self._client = client
        self._reading = Reading(cursor)
        self._delivered = cursor
        self._has_iterated = False
        self._queue: deque[Event] = deque()
        self._pulling = asyncio.Lock()
        self._source: AsyncGenerator[Event] | None = None
        self._result: Result | None = None

    @property
    def cursor(self) -> str:
        """The id of the last event that the consumer got; `0-0` before the first one."""
        return self._delivered if self._has_iterated else self._reading.cursor

    @property
    def text_so_far(self) -> str:
        """The text, as far as this reader has read it."""
        return "".join(self._reading.text)

    def __aiter__(self) -> AsyncIterator[Event]:
        """Events in order, each once; the last one is `end`. To stop iterating does not cancel."""
        return self

    async def __anext__(self) -> Event:
        self._has_iterated = True
        while not self._queue:
            if self._reading.is_done:
                raise StopAsyncIteration
            async with self._pulling:
                if not self._queue and not self._reading.is_done:
                    await self._pull()
        event = self._queue.popleft()
        self._delivered = event.id
        return event

    async def text(self, *, on_reset: OnReset | None = None) -> AsyncGenerator[str]:
        """Yield the pieces of the text.

        Args:
            on_reset: called when the text begins anew: drop what was shown.

        Raises:
            TailraceError: `reset`, the text began anew and there is no `on_reset`.
        """
        has_text = False
        async for event in self:
            if event.type == "token":
                has_text = True
                yield event.text
            elif event.type == "reset":
                if on_reset is not None:
                    on_reset(event)
                elif has_text:
                    raise reset_error()

    async def result(self) -> Result:
        """Return the whole answer at its end.

        A generation that failed has the status `failed` and its `error`; this is no exception.

        Raises:
            TailraceError: the answer cannot be read.
        """
        while not self._reading.is_done:
            async with self._pulling:
                if not self._reading.is_done:
                    await self._pull()
        if self._result is None:
            result = self._reading.result(self.id)
            self._result = result or result_of(await self._client.snapshot(self.id))
        self._queue.clear()
        self._delivered = self._reading.cursor
        return self._result

    async def cancel(self) -> dict[str, Any]:
        """End the generation, on any node. The text so far stays. May be repeated."""
        return await self._client.cancel(self.id)

    async def aclose(self) -> None:
        """Close the connection. The generation goes on, and so can this answer."""
        source, self._source = self._source, None
        if source is not None:
            await source.aclose()

    async def _pull(self) -> None:
        """Read until there is one more event, or the end."""
        if self._source is None:
            self._source = self._client._follow(self.id, self._reading)
        try:
            self._queue.append(await anext(self._source))
        except StopAsyncIteration:
            self._source = None
        except BaseException:
            # After an error or a cancellation the next call opens another connection.
            self._source = None
            raise
