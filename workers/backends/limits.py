"""The limits in time on one upstream call: connect, first token, gap between reads, total.

Only computes deadlines; the caller gives the time and does the waiting. Time that the caller
spends elsewhere, for instance on a slow store, is not the backend's silence.
"""

from __future__ import annotations

from shared.config.settings import Settings
from shared.errors import BackendError

AFTER_FINISH_S = 5.0  # usage and [DONE] follow the finish_reason at once, or not at all


class Limits:
    """The deadlines of one call, all on the clock of `now`.

    Attributes:
        has_content: set by the caller once the model has said something.
    """

    def __init__(self, settings: Settings, now: float) -> None:
        self.has_content = False
        self._settings = settings
        self._total_at = now + settings.upstream_total_s
        self._next_at = (
            self._total_at
        )  # until the request is sent, connecting has a limit of its own
        self._next = ""

    @property
    def deadline(self) -> float:
        return min(self._next_at, self._total_at)

    def sent(self, now: float) -> None:
        """The request is on its way: the wait for the first token begins."""
        wait_s = self._settings.upstream_first_token_s
        self._next_at = now + wait_s
        self._next = f"the backend gave no token within {wait_s:g} s"

    def read(self, now: float, *, is_finished: bool) -> None:
        """A read is over, the next begins. Comments keep a stream alive, but are no first token."""
        if is_finished:
            self._next_at = now + AFTER_FINISH_S
        elif self.has_content:
            wait_s = self._settings.upstream_idle_s
            self._next_at = now + wait_s
            self._next = f"the backend was silent for {wait_s:g} s"

    def exceeded(self) -> BackendError:
        """The deadline has passed: say which limit it was."""
        if self._next_at < self._total_at:
            return BackendError("upstream_timeout", self._next)
        wait_s = self._settings.upstream_total_s
        return BackendError("upstream_timeout", f"the answer took more than {wait_s:g} s")

    def no_connection(self) -> BackendError:
        wait_s = self._settings.upstream_connect_s
        return BackendError("upstream_timeout", f"no connection to the backend within {wait_s:g} s")
