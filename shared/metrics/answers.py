"""What a worker measures of each attempt, for its own metrics port. Pure.

Workers call an `AnswerMetrics`. Without a port that is `NO_METRICS`, and prometheus_client is not
loaded.
"""

from __future__ import annotations

from typing import Protocol

from shared.log.events import Counts


class AnswerMetrics(Protocol):
    """Takes the measures of attempts. Every call is cheap, and none is made for each token."""

    def begun(self, model: str, priority: str, waited_s: float) -> None:
        """Count an attempt that begins after a wait for a worker."""

    def first_token(self, model: str, seconds: float) -> None:
        """Count the first token of an answer, `seconds` after the acceptance."""

    def left(self, model: str, *, ending: str, code: str, seconds: float) -> None:
        """Count an attempt that is over: how it ended, the code of its error, how long it took."""

    def asked(self, model: str, backend: str, ending: str) -> None:
        """Count a request to a backend of a route: `completed`, `failed` or `given up`."""

    def counted(self, model: str, usage: Counts) -> None:
        """Count the tokens of an answer that this worker has ended."""


class _NoMetrics:
    def begun(self, model: str, priority: str, waited_s: float) -> None:
        pass

    def first_token(self, model: str, seconds: float) -> None:
        pass

    def left(self, model: str, *, ending: str, code: str, seconds: float) -> None:
        pass

    def asked(self, model: str, backend: str, ending: str) -> None:
        pass

    def counted(self, model: str, usage: Counts) -> None:
        pass


NO_METRICS: AnswerMetrics = _NoMetrics()
