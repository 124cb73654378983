"""One request of an attempt to one backend of a route, from its start to its close."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from shared.errors import BackendError
from shared.log.events import AnyEvent
from workers.backends.contract import Backend, BackendItem, Finish
from workers.routing.health import HealthCall
from workers.routing.legs import Leg
from workers.takeover.answer import Asked, read_answer

Items = list[BackendItem]


class Call:
    """One request to a backend.

    Args:
        note: takes the outcome, for the health of the backend.
        count: takes how the request ended, for the metrics.

    Attributes:
        leg: how the backend was asked.
        has_spoken: an event of the answer has come.
        is_finished: the answer is complete.
    """

    def __init__(
        self, leg: Leg, asked: Asked, note: HealthCall, count: Callable[[str], None]
    ) -> None:
        self.leg = leg
        self._count = count
        self.has_spoken = self.is_finished = False
        self._asked = asked
        self._note = note
        self._tokens = 0
        self._is_closed = False

    @property
    def name(self) -> str:
        return self.leg.name

    @property
    def backend(self) -> Backend:
        return self._asked.backend

    async def read(self) -> AsyncGenerator[Items, None]:
        """Yield the events; closing the generator closes the connection.

        Raises:
            BackendError: the request has failed.
        """
        error: BackendError | None = None
        try:
            async with aclosing(read_answer(self._asked)) as stream:
                async for items in stream:
                    if items:
                        self.note(items)
                    yield items
            if not self.is_finished:
                raise BackendError("upstream_error", "the backend stopped in mid-answer")
        except BackendError as exc:
            error = None if self.is_finished else exc
            raise
        finally:
            self.close(error)

    def flush(self) -> Sequence[AnyEvent]:
        """Return what the stages hold back."""
        return self._asked.stages.flush() if self._asked.stages is not None else ()

    async def finished(self) -> None:
        """Let the stages work after the end."""
        if self._asked.stages is not None:
            await self._asked.stages.finished()

    def note(self, items: Sequence[BackendItem]) -> None:
        """Note events of the answer; nearly all are tokens."""
        if not self.has_spoken:
            self.has_spoken = True
            self._note.first_token()
        self._tokens += len(items)
        self.is_finished = isinstance(items[-1], Finish)

    def close(self, error: BackendError | None = None) -> None:
        """Note the outcome, once. Without an error and an end, the request was given up."""
        if not self._is_closed:
            self._is_closed = True
            is_abandoned = error is None and not self.is_finished
            self._count("failed" if error else "given up" if is_abandoned else "completed")
            self._note.close(error, tokens=self._tokens, is_abandoned=is_abandoned)
