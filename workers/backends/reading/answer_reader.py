"""The interface of readers that `PostingBackend` uses: bytes of one answer in, events out."""

from __future__ import annotations

from typing import Protocol

from shared.errors import BackendError
from shared.log.events import Usage
from workers.backends.contract import BackendItem


class AnswerReader(Protocol):
    """Reads one answer. Does no I/O and knows no clock.

    Invariant: `Finish` comes once and last, and only after the server's own mark of a complete
    answer. The result does not depend on how the bytes are cut. Any bytes give items or a failure.

    Attributes:
        is_done: nothing more is read: `Finish` was returned, or `failure` is set.
        failure: raise it after the events returned so far have been passed on.
        has_finish_reason: the answer is complete; only its counts may follow.
        warnings: names of the repairs and omissions.
    """

    is_done: bool
    failure: BackendError | None
    warnings: set[str]

    @property
    def has_finish_reason(self) -> bool: ...

    def feed(self, data: bytes) -> list[BackendItem]:
        """Return the events that `data` completes, in order."""
        ...

    def feed_eof(self) -> list[BackendItem]:
        """Handle the end of the body: return the last events with `Finish`, or set `failure`."""
        ...

    def take_running_usage(self) -> Usage | None:
        """Return the counts of an unfinished answer, if the server has reported other ones."""
        ...
