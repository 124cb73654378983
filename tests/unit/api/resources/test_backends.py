"""GET /v1/backends: what workers have shared, as JSON and as metrics."""

from __future__ import annotations

from typing import Any

import pytest

from api.edge.metrics import Metrics
from api.resources.backends import content_of
from shared.backends.board import Report, change_breaker, write_reports
from shared.backends.breaker import Breaker
from shared.backends.overview import backend_views
from shared.backends.slots import BackendSlots, Waiter
from shared.console.histogram import bucket_of
from shared.queue.partitions import Partitions
from shared.redis.client import clock_ms
from shared.redis.scripts import Scripts


@pytest.fixture
async def redis(fake_redis: Any) -> Any:
    """What two workers know of three backends."""
    now_ms = await clock_ms(fake_redis)
    busy = Report(
        in_flight=2, slots=2, calls=10, failures={"failed": 3}, statuses={"500": 3},
        first_tokens={bucket_of(0.5): 9, bucket_of(4.0): 1}, rates={bucket_of(40.0): 5},
    )  # fmt: skip
    gpt = Report(left={"requests": 7, "tokens": 9_000})
    await write_reports(fake_redis, "one", {"gpu": busy, "gpt": gpt, "dead": Report()}, now_ms)
    less = Report(left={"requests": 5})
    await write_reports(fake_redis, "two", {"gpu": busy, "gpt": less}, now_ms)
    await write_reports(fake_redis, "gone", {"old": busy}, now_ms - 60_000)
    scripts = Scripts(fake_redis)
    opened = Breaker(state="open", since_ms=now_ms, until_ms=now_ms + 5_000, reason="refused")
    await change_breaker(scripts, "dead", b"", opened)
    await change_breaker(scripts, "gpt", b"", Breaker(limited_until_ms=now_ms + 9_000))
    for name in ("x", "y", "z"):
        await BackendSlots(scripts, "gpu", 2, 60_000).call(Waiter(name, entry=b"{}"))
    return fake_redis


async def test_the_sums_of_all_living_workers_are_shown(redis: Any) -> None:
    found = {view.name: content_of(view) for view in await backend_views(redis)}

    assert sorted(found) == ["dead", "gpt", "gpu"]
    gpu = found["gpu"]
    assert (gpu["state"], gpu["in_flight"], gpu["calls"]) == ("closed", 4, 20)
    assert gpu["slots"] == {"number": 2, "held": 2, "waiting": 1}
    assert (gpu["failures"], gpu["statuses"]) == ({"failed": 6}, {"500": 6})
    assert gpu["first_token_s"]["p50"] == pytest.approx(0.5, rel=0.1)
    assert gpu["first_token_s"]["p99"] == pytest.approx(4.0, rel=0.1)
    assert gpu["tokens_per_s"]["p50"] == pytest.approx(40.0, rel=0.1)
    assert (gpu["rate_limit"], gpu["since_s"], gpu["reason"]) == (None, None, None)


async def test_a_breaker_and_a_rate_limit_are_shown_with_their_times(redis: Any) -> None:
    found = {view.name: content_of(view) for view in await backend_views(redis)}

    dead, gpt = found["dead"], found["gpt"]
    assert (dead["state"], dead["reason"], dead["slots"]) == ("open", "refused", None)
    assert 4.0 < dead["retry_s"] <= 5.0
    assert dead["since_s"] < 1.0
    assert (gpt["state"], gpt["rate_limit"]["left"]) == (
        "limited",
        {"requests": 5, "tokens": 9_000},
    )
    assert 8.0 < gpt["rate_limit"]["reset_s"] <= 9.0


async def test_the_metrics_have_the_same(redis: Any) -> None:
    metrics = Metrics()
    await metrics.update_from_redis(redis, Partitions())
    text = metrics.render().decode()

    assert 'tailrace_backend_state{backend="dead",state="open"} 1.0' in text
    assert 'tailrace_backend_state{backend="dead",state="closed"} 0.0' in text
    assert 'tailrace_backend_waiting{backend="gpu"} 1.0' in text
    assert 'tailrace_backend_failures_total{backend="gpu",what="failed"} 6.0' in text
    assert 'tailrace_backend_first_token_seconds{backend="gpu",quantile="0.5"}' in text
    assert 'backend="old"' not in text
