"""One request of an attempt to one backend of a route, from its start to its close.

Between the backend and the attempt stand the stages of the model. A stage may work before the
backend is asked, hold events back, or answer by itself. So the health of the backend is noted where
its own events come (`_Heard`), and not behind the stages.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from shared.errors import BackendError
from shared.log.events import AnyEvent
from shared.log.request import Request
from workers.backends.background import BackgroundBackend
from workers.backends.contract import Backend, BackendItem, Finish
from workers.routing.candidates import Candidate
from workers.routing.health import HealthCall
from workers.takeover.answer import Asked, read_answer

Items = list[BackendItem]


class Call:
    """One request to a backend.

    Args:
        note: takes the outcome, for the health of the backend.
        count: takes `asked`, and later how the request ended, for the metrics.

    Attributes:
        candidate: how the backend is asked.
        on_asked: is called when the backend gets the request; the owner may set it.
        is_finished: the answer is complete.
    """

    def __init__(
        self, candidate: Candidate, asked: Asked, note: HealthCall, count: Callable[[str], None]
    ) -> None:
        self.candidate = candidate
        self.is_finished = False
        self.backend = asked.backend
        self.on_asked: Callable[[], None] = _nothing
        self._heard = _Heard(asked.backend, note, self._note_asked)
        self._asked = replace(asked, backend=self._heard)
        self._note, self._count = note, count
        self._is_closed = False

    @property
    def name(self) -> str:
        return self.candidate.name

    def _note_asked(self) -> None:
        self._count("asked")
        self.on_asked()

    @property
    def is_asked(self) -> bool:
        """Whether the backend got the request. Before that, only stages can have spoken."""
        return self._heard.is_asked

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
                        self.is_finished = isinstance(items[-1], Finish)
                    yield items
            if not self.is_finished:
                raise BackendError("upstream_error", "the backend stopped in mid-answer")
        except BackendError as exc:
            error = None if self.is_finished else exc
            raise
        finally:
            self._close(error)

    def flush(self) -> Sequence[AnyEvent]:
        """Return what the stages hold back."""
        return self._asked.stages.flush() if self._asked.stages is not None else ()

    async def finished(self) -> None:
        """Let the stages work after the end."""
        if self._asked.stages is not None:
            await self._asked.stages.finished()

    def _close(self, error: BackendError | None) -> None:
        """Note the outcome, once. Without an error and an end, the request was given up."""
        if self._is_closed:
            return
        self._is_closed = True
        if not self._heard.is_asked:  # a stage has answered or failed
            self._note.close(is_abandoned=True)
            return
        is_given_up = error is None and not self.is_finished
        self._count("failed" if error else "given up" if is_given_up else "completed")
        self._note.close(error, tokens=self._heard.items, is_abandoned=is_given_up)


class _Heard:
    """A backend whose events are noted as they come.

    Attributes:
        is_asked: the backend got the request; False: a stage has answered, or not yet passed it on.
        items: events that came; nearly all are tokens.
    """

    def __init__(self, backend: Backend, note: HealthCall, on_asked: Callable[[], None]) -> None:
        self.can_continue, self.counts_whole = backend.can_continue, backend.counts_whole
        self.is_asked = False
        self.items = 0
        self._backend, self._note, self._on_asked = backend, note, on_asked

    def stream(
        self, request: Request, *, prefix: str, seed: str, form: str
    ) -> AsyncGenerator[Items, None]:
        """As `Backend.stream`."""
        return self._hear(self._backend.stream(request, prefix=prefix, seed=seed, form=form))

    def attach(self, upstream_id: str, *, seed: str) -> AsyncGenerator[Items, None]:
        """As `BackgroundBackend.attach`."""
        assert isinstance(self._backend, BackgroundBackend)
        return self._hear(self._backend.attach(upstream_id, seed=seed))

    async def cancel(self, upstream_id: str) -> None:
        """As `BackgroundBackend.cancel`."""
        assert isinstance(self._backend, BackgroundBackend)
        await self._backend.cancel(upstream_id)

    async def aclose(self) -> None:
        """The worker closes the backend itself."""

    async def _hear(self, answer: AsyncGenerator[Items, None]) -> AsyncGenerator[Items, None]:
        if not self.is_asked:
            self.is_asked = True
            self._on_asked()
        async with aclosing(answer) as stream:
            async for items in stream:
                if items:
                    if not self.items:
                        self._note.first_token()
                    self.items += len(items)
                yield items


def _nothing() -> None:
    pass
