"""Fixtures of the tests of the hub."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.hub_harness import HubHarness


@pytest.fixture(autouse=True)
def requeue_through_the_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send requeues to the fake store, which notes the call."""
    monkeypatch.setattr("api.hub.upkeep.requeue", lambda store, *args: store.requeue(*args))


@pytest.fixture
async def hub_harness() -> AsyncIterator[HubHarness]:
    async with HubHarness() as hub_harness:
        yield hub_harness
