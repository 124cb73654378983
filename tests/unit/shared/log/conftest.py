"""The fixture of the store's tests, which are one file per rule."""

from __future__ import annotations

import pytest

from tests.support.generation import create, store_on
from tests.unit.shared.log.store_scene import RETENTION_MS


@pytest.fixture
async def store(redis):
    """A store with one queued generation, on the fake and on a real server.

    The fake cannot read Redis's history, which counts as "may have forgotten": its attempt numbers
    are milliseconds from the first one on. Tests that need the history: ../test_store_server.py.
    """
    store = store_on(redis, retention_s=RETENTION_MS / 1000)
    await create(store)
    return store
