"""The measured times of one backend: first tokens, rates, calls and failures of the last minutes.

Pure; bounded by `SAMPLES_MAX` samples of each kind. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

import math
from collections import Counter, deque

from shared.backends.board import Busy, Report
from shared.console.histogram import bucket_of, quantile

WINDOW_S = 300.0
SAMPLES_MAX = 512
TOKENS_MIN = 8  # an answer of fewer tokens has no rate


class Samples:
    """The newest values of one measure, each with its time, in buckets."""

    def __init__(self) -> None:
        self._values: deque[tuple[float, int]] = deque()
        self.buckets: Counter[int] = Counter()

    def add(self, now_s: float, value: float) -> None:
        self._values.append((now_s, bucket := bucket_of(value)))
        self.buckets[bucket] += 1
        self.drop_old(now_s)

    def drop_old(self, now_s: float) -> None:
        """Forget the values that are older than the window, or too many."""
        while self._values and (
            self._values[0][0] < now_s - WINDOW_S or len(self._values) > SAMPLES_MAX
        ):
            bucket = self._values.popleft()[1]
            self.buckets[bucket] -= 1
            if not self.buckets[bucket]:
                del self.buckets[bucket]


class Measures:
    """What one worker measured at one backend.

    Attributes:
        in_flight: calls that have begun and not ended.
        unanswered: those of them without a first token.
        calls: since the worker started.
        called_s: when the last call began.
        answered_s: when a first token last came.
        last_first_s: how long this token took.
        failures: by outcome, since the worker started.
        statuses: failures by the HTTP status of the server, since the worker started.
        left: what the vendor's last answer said is left, by the name of the limit.
    """

    def __init__(self, now_s: float) -> None:
        self.in_flight = 0
        self.unanswered = 0
        self.calls = 0
        self.called_s = now_s
        self.answered_s = -math.inf
        self.last_first_s = 0.0
        self.failures: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.left: dict[str, int] = {}
        self.first_token = Samples()
        self.rate = Samples()

    def note_first_token(self, now_s: float, took_s: float) -> None:
        """Measure a first token."""
        self.answered_s, self.last_first_s = now_s, took_s
        self.first_token.add(now_s, took_s)

    def note_failure(self, outcome: str, status: int | None) -> None:
        """Count a failure, by its outcome and by the HTTP status of the server."""
        self.failures[outcome] += 1
        if status is not None:
            self.statuses[str(status)] += 1

    def busy(self, now_s: float) -> Busy:
        """Return what other workers need to choose a backend."""
        self.first_token.drop_old(now_s)
        self.rate.drop_old(now_s)
        return Busy(
            self.in_flight,
            quantile(self.first_token.buckets, 0.5) or 0.0,
            quantile(self.rate.buckets, 0.5) or 0.0,
        )

    def report(self, slots: int) -> Report:
        """Return what operators see."""
        return Report(
            slots=slots,
            in_flight=self.in_flight,
            calls=self.calls,
            failures=dict(self.failures),
            statuses=dict(self.statuses),
            first_tokens=dict(self.first_token.buckets),
            rates=dict(self.rate.buckets),
            left=dict(self.left),
        )
