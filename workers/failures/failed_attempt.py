"""Decides whether a generation waits, is tried again, or ends, after a failed attempt.

Pure, except for a line in the log. A failure counts unless it is an outage of the model server
(workers/failures/outage.py).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.events import Counts, End
from shared.log.records import Begun, failed
from shared.queue.lanes import LaneEntry
from workers.backends.retry_after import retry_pause_s
from workers.failures.limited import is_limited, limit_wait
from workers.failures.outage import Postponed, postpone

log = logging.getLogger(__name__)

REASON_CHARACTERS_MAX = 200  # of a log line
RETRY_PAUSE_S = 0.5  # before the second attempt; doubles with each failure
RETRY_PAUSE_MAX_S = 30.0


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that failed with `error`."""

    settings: Settings
    model: Model
    ticket: LaneEntry
    begun: Begun
    error: BackendError

    @property
    def may_wait(self) -> bool:
        """Whether `server_wait` has to decide."""
        return self.error.is_outage or is_limited(self.error)

    def server_wait(self, *, has_answered: bool, now_ms: int) -> Postponed | None:
        """Return how the generation waits for its server; None: the failure counts.

        It waits for a server that is away, and for the rate limit of a vendor.

        Args:
            has_answered: the server had accepted the request.
            now_ms: Redis's clock.
        """
        if self.model.on_takeover == "fail":
            return None
        own_ms = self.begun.fields.get(b"wait")  # lines of a batch have a time of their own
        own_s = int(own_ms) / 1000 if own_ms else None
        if is_limited(self.error):
            limit_s = own_s or self.settings.queue_wait_s
            return limit_wait(self.ticket, self.error, now_ms=now_ms, limit_s=limit_s)
        return postpone(
            self.ticket,
            self.error,
            has_answered=has_answered,
            now_ms=now_ms,
            limit_s=own_s or self.settings.upstream_outage_s,
        )

    def report(self, *, is_postponed: bool) -> str:
        """Tell the operator about a failure that counts; return the name of its counter.

        A server that is away has its own line, `model server unusable`, at most one in a while.
        """
        if is_postponed:
            return "postponed"
        upstream = self.error.upstream
        status = self.error.status or (upstream.status if upstream is not None else None)
        # With a 4xx a server may quote the prompt, which no line of a log may hold.
        is_quoted = status is None or status >= 500
        data = {
            "generation_id": self.begun.meta.generation_id,
            "model": self.model.name,
            "url": self.model.base_url,
            "code": self.error.code,
            "status": status,
            "reason": self.error.message[:REASON_CHARACTERS_MAX] if is_quoted else "refused",
            "attempt": self.begun.start[0].attempt,
        }
        log.warning("attempt failed", extra={k: v for k, v in data.items() if v not in (None, "")})
        return "attempts_failed"

    @property
    def is_final(self) -> bool:
        """Whether no other attempt follows; only for a failure that counts."""
        is_last = self.begun.failures + 1 >= self.settings.attempts_max
        return is_last or not self.error.retryable or self.model.on_takeover == "fail"

    def end(self, usage: Counts | None) -> End:
        """Return the end of a generation whose last attempt this was."""
        error, failures = self.error, self.begun.failures + 1
        code, message, retryable = error.code, error.message, error.retryable
        if retryable and self.model.on_takeover != "fail":
            message = f"given up after {failures} failures; the last: {code}: {message}"
            code = "attempts_exhausted"
        return failed(code, message, retryable=retryable, usage=usage, upstream=error.upstream)

    def next_try(self, failures: int) -> Postponed:
        """Return how the generation waits after a failure that counts.

        Args:
            failures: the attempts that have failed, with this one.
        """
        pause_s = retry_pause_s(
            min(RETRY_PAUSE_S * 2 ** (failures - 1), RETRY_PAUSE_MAX_S),
            self.error.retry_after_s,
            failures=failures,
            is_batch=self.ticket.priority == "batch",
            wait_s_max=self.settings.queue_wait_s,
        )
        return Postponed(self.ticket, pause_s)
