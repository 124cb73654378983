"""Fixtures of the tests of the hub."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.bench import Bench


@pytest.fixture(autouse=True)
def requeue_through_the_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send requeues to the fake store, which notes the call."""
    monkeypatch.setattr("api.hub.upkeep.requeue", lambda store, *args: store.requeue(*args))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as bench:
        yield bench
