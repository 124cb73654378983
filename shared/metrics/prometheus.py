"""The metrics of answers by model, in Prometheus form: of a worker, and of an API node.

Each role has a registry of its own, so that several roles in one process share nothing.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from shared.log.events import Counts
from shared.metrics.labels import BoundedLabel

FIRST_TOKEN_BUCKETS = (
    0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip
WAIT_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
RUN_BUCKETS = (
    0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0,
)  # fmt: skip

# Without the creation time of each counter a scrape has half the size.
disable_created_metrics()  # type: ignore[no-untyped-call]


class WorkerMetrics:
    """The metrics of one worker: an `AnswerMetrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models = BoundedLabel()
        self._codes = BoundedLabel()
        self._waits = Histogram(
            "tailrace_worker_wait_seconds",
            "How long prompts waited for a worker before an attempt began.",
            ["model", "priority"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self._first_tokens = Histogram(
            "tailrace_worker_first_token_seconds",
            "From the acceptance of a prompt to the first token of its answer.",
            ["model"],
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self._runs = Histogram(
            "tailrace_worker_run_seconds",
            "How long attempts took, from the begin until they left the worker.",
            ["model"],
            buckets=RUN_BUCKETS,
            registry=registry,
        )
        self._attempts = Counter(
            "tailrace_worker_attempts_total",
            "Attempts that have left the worker, by how they ended and the code of their error.",
            ["model", "ending", "code"],
            registry=registry,
        )
        self._tokens = Counter(
            "tailrace_worker_tokens_total",
            "Tokens of answers that this worker has ended, of all their attempts: as the servers "
            "counted them, or estimated.",
            ["model", "kind"],
            registry=registry,
        )

        self._requests = Counter(
            "tailrace_backend_requests_total",
            "Requests to the backends of routes, by how they ended.",
            ["model", "backend", "ending"],
            registry=registry,
        )

    def begun(self, model: str, priority: str, waited_s: float) -> None:
        """As `AnswerMetrics.begun`."""
        self._waits.labels(self._models.of(model), priority).observe(waited_s)

    def first_token(self, model: str, seconds: float) -> None:
        """As `AnswerMetrics.first_token`."""
        self._first_tokens.labels(self._models.of(model)).observe(seconds)

    def left(self, model: str, *, ending: str, code: str, seconds: float) -> None:
        """As `AnswerMetrics.left`."""
        name = self._models.of(model)
        self._runs.labels(name).observe(seconds)
        self._attempts.labels(name, ending, self._codes.of(code) if code else "").inc()

    def asked(self, model: str, backend: str, ending: str) -> None:
        """As `AnswerMetrics.asked`."""
        self._requests.labels(self._models.of(model), self._models.of(backend), ending).inc()

    def counted(self, model: str, usage: Counts) -> None:
        """As `AnswerMetrics.counted`."""
        name = self._models.of(model)
        self._tokens.labels(name, "prompt").inc(max(0, usage.prompt_tokens))
        self._tokens.labels(name, "completion").inc(max(0, usage.completion_tokens))


class FirstTokenHistogram:
    """The first tokens that one API node has seen, by model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models = BoundedLabel()
        self._histogram = Histogram(
            "tailrace_first_token_seconds",
            "From a prompt's arrival at this node to the first token of its answer here.",
            ["model"],
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )

    def observe(self, model: str, seconds: float) -> None:
        """Count a first token, `seconds` after the prompt came."""
        self._histogram.labels(self._models.of(model)).observe(seconds)
