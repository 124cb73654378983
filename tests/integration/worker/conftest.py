"""The real server, and short pauses between the attempts of a run."""

from __future__ import annotations

import pytest

from workers import failed_attempt


@pytest.fixture
def url(redis_server, real_redis):
    """The URL of the real server, which is empty."""
    return redis_server.url


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(failed_attempt, "RETRY_PAUSE_S", 0.01)
