"""The metrics of the backends, from the last read of Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.backends.overview import BackendView
from shared.console.histogram import quantile

STATES = ("closed", "suspect", "open", "half_open", "limited")
GAUGES: Sequence[tuple[str, str, Callable[[BackendView], float | None]]] = (
    ("in_flight", "Requests that a backend answers now.", lambda view: view.in_flight),
    ("slots", "Requests that a backend may answer at a time; 0: any number.", lambda v: v.slots),
    ("slots_held", "Slots of a backend that are taken.", lambda view: view.held),
    ("waiting", "Generations that wait for a slot of a backend.", lambda view: view.waiting),
    ("limited_seconds", "Until a vendor's rate limit is reset.", lambda view: view.limited_s),
)


class BackendCollector(Collector):
    """The metrics of `views`, which a scrape reads before."""

    def __init__(self, views: Callable[[], Sequence[BackendView]]) -> None:
        self._views = views

    def collect(self) -> Iterator[Metric]:
        views = self._views()
        state = GaugeMetricFamily(
            "tailrace_backend_state",
            "1 for the present state of a backend, 0 for the others.",
            labels=["backend", "state"],
        )
        for view in views:
            for name in STATES:
                state.add_metric([view.name, name], float(view.state == name))
        yield state
        for name, text, value_of in GAUGES:
            gauge = GaugeMetricFamily(f"tailrace_backend_{name}", text, labels=["backend"])
            for view in views:
                gauge.add_metric([view.name], value_of(view) or 0.0)
            yield gauge
        yield from _times(views)
        yield from _counts(views)


def _times(views: Sequence[BackendView]) -> Iterator[Metric]:
    first = GaugeMetricFamily(
        "tailrace_backend_first_token_seconds",
        "Time from a request to the first token, of the last minutes.",
        labels=["backend", "quantile"],
    )
    rate = GaugeMetricFamily(
        "tailrace_backend_tokens_per_second",
        "Rate of an answer, of the last minutes.",
        labels=["backend", "quantile"],
    )
    for view in views:
        for share in (0.5, 0.99):
            for family, counts in ((first, view.first_tokens), (rate, view.rates)):
                if (value := quantile(counts, share)) is not None:
                    family.add_metric([view.name, str(share)], value)
    yield from (first, rate)


def _counts(views: Sequence[BackendView]) -> Iterator[Metric]:
    calls = CounterMetricFamily(
        "tailrace_backend_calls",
        "Requests to a backend, of the living workers.",
        labels=["backend"],
    )
    failures = CounterMetricFamily(
        "tailrace_backend_failures",
        "Requests that failed at a backend, of the living workers.",
        labels=["backend", "what"],
    )
    for view in views:
        calls.add_metric([view.name], view.calls)
        for what, count in view.failures.items():
            failures.add_metric([view.name, what], count)
    yield from (calls, failures)
