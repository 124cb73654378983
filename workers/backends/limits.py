"""The time limits of one upstream call: connect, first token, gap between reads, total.

Computes deadlines only; the caller passes the time and waits. Time that the caller spends between
reads, for instance while Redis is slow, does not count as the backend's silence.
"""

from __future__ import annotations

from shared.config.settings import Settings
from shared.errors import BackendError

AFTER_FINISH_S = 5.0  # usage and [DONE] follow the finish_reason at once, or not at all


class Limits:
    """The deadlines of one call, in seconds on the caller's clock.

    Attributes:
        has_content: the caller sets it after the first content of the answer.
    """

    def __init__(self, settings: Settings, now: float) -> None:
        self.has_content = False
        self._settings = settings
        self._total_at = now + settings.upstream_total_s
        # Connecting has a limit of its own, so before `sent` only the total limit applies.
        self._next_at = self._total_at
        self._next_message = ""

    @property
    def deadline(self) -> float:
        return min(self._next_at, self._total_at)

    def sent(self, now: float) -> None:
        """Note that the request was sent: the wait for the first token begins."""
        wait_s = self._settings.upstream_first_token_s
        self._next_at = now + wait_s
        self._next_message = f"the backend gave no token within {wait_s:g} s"

    def read(self, now: float, *, is_finished: bool) -> None:
        """Note that a read is over and the next one begins.

        Before the first content the deadline stays, so comments of the server do not extend it.
        """
        if is_finished:
            self._next_at = now + AFTER_FINISH_S
        elif self.has_content:
            wait_s = self._settings.upstream_idle_s
            self._next_at = now + wait_s
            self._next_message = f"the backend was silent for {wait_s:g} s"

    def heard(self, now: float) -> None:
        """Note that audio of the client has come: the backend had to wait for it."""
        if not self.has_content:
            self.sent(now)

    def exceeded(self) -> BackendError:
        """Return the error for a passed deadline; its message names the limit."""
        if self._next_at < self._total_at:
            return BackendError("upstream_timeout", self._next_message)
        wait_s = self._settings.upstream_total_s
        return BackendError("upstream_timeout", f"the answer took more than {wait_s:g} s")

    def no_connection(self) -> BackendError:
        """Return the error for a connection that was not made in time."""
        wait_s = self._settings.upstream_connect_s
        return BackendError("upstream_timeout", f"no connection to the backend within {wait_s:g} s")
