"""One request to a backend, as its health sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from shared.errors import BackendError
from workers.health.outcome import Outcome, outcome_of


class CallNotes(Protocol):
    """What takes the notes of calls: `BackendHealth`."""

    clock: Callable[[], float]

    def note_first_token(self, call: Call) -> None: ...

    def note_end(
        self, call: Call, outcome: Outcome, error: BackendError | None, tokens: int
    ) -> None: ...


@dataclass(slots=True)
class Call:
    """One request to a backend, from `BackendHealth.start` to `close`.

    As a context manager it closes itself, as abandoned, if nobody has closed it.
    """

    health: CallNotes
    backend: str
    began_s: float
    is_trial: bool
    returned_for: str = ""  # the generation whose slot is given back at the end of the call
    first_token_s: float | None = None  # after `began_s`
    is_closed: bool = False

    def first_token(self) -> None:
        """Note the first item of the answer, not only text: the backend works.

        Only the first call counts.
        """
        if self.first_token_s is None and not self.is_closed:
            self.first_token_s = self.health.clock() - self.began_s
            self.health.note_first_token(self)

    def close(
        self, error: BackendError | None = None, *, tokens: int = 0, is_abandoned: bool = False
    ) -> None:
        """Note the end of the call. Only the first call counts.

        Args:
            error: why the call failed; None: it did not.
            tokens: pieces of text that came; for the rate.
            is_abandoned: the caller closed the call before the backend had ended.
        """
        if not self.is_closed:
            self.is_closed = True
            outcome = Outcome.ABANDONED if is_abandoned and error is None else outcome_of(error)
            self.health.note_end(self, outcome, error, tokens)

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(is_abandoned=True)
