"""The measured times of one backend: first tokens, rates, calls and failures of the last minutes.

Pure; bounded by `SAMPLES_MAX` samples of each kind. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import Counter, deque

WINDOW_S = 300.0
SAMPLES_MAX = 512
TOKENS_MIN = 8  # an answer of fewer tokens has no rate


class Samples:
    """The newest values of one measure, each with its time."""

    def __init__(self) -> None:
        self._values: deque[tuple[float, float]] = deque(maxlen=SAMPLES_MAX)

    def add(self, now_s: float, value: float) -> None:
        self._values.append((now_s, value))

    def recent(self, now_s: float) -> list[float]:
        """Return the values of the window, sorted."""
        while self._values and self._values[0][0] < now_s - WINDOW_S:
            self._values.popleft()
        return sorted(value for _, value in self._values)


def percentile(values: list[float], share: float) -> float | None:
    """Return the value below which `share` of the sorted values lie; None: there are none."""
    if not values:
        return None
    return values[min(len(values) - 1, int(share * len(values)))]


class Measures:
    """What one worker measured at one backend.

    Attributes:
        in_flight: calls that have begun and not ended.
        unanswered: those of them without a first token.
        calls: since the worker started.
        failures: by outcome, since the worker started.
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self.unanswered = 0
        self.calls = 0
        self.failures: Counter[str] = Counter()
        self.first_token = Samples()
        self.rate = Samples()
