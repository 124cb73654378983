"""The real server, and short pauses between the attempts of a run."""

from __future__ import annotations

import pytest

from tests.support.worker_harness import WorkerHarness
from workers.failures import failed_attempt


@pytest.fixture
def url(redis_server, real_redis):
    """The URL of the real server, which is empty."""
    return redis_server.url


@pytest.fixture(params=[1, 4])
def queue_partitions(request, monkeypatch):
    """The same test with the queue in one part and in four."""
    monkeypatch.setattr(WorkerHarness, "queue_partitions", request.param)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(failed_attempt, "RETRY_PAUSE_S", 0.01)
