"""The record of the log of a generation that ended under another worker."""

from __future__ import annotations

import pytest

from shared.errors import Unavailable
from shared.redis import keys
from tests.support.generation import FIELDS, ID, create, store_on
from workers.writing import owner_meter
from workers.writing.owner_meter import late_records


async def test_the_log_is_not_read_while_the_shard_of_the_owner_is_away(redis, monkeypatch):
    store = store_on(redis)
    await create(store)
    asked: list[str] = []
    monkeypatch.setattr(owner_meter, "read_log", None)
    monkeypatch.setattr(owner_meter, "serves", lambda _, *names: asked.extend(names))

    with pytest.raises(Unavailable):
        await late_records(store, ID)

    assert asked == [keys.owner_bytes(str(FIELDS["owner"]))]


async def test_the_log_is_counted_while_the_shard_of_the_owner_answers(redis):
    store = store_on(redis)
    await create(store)
    assert len(await late_records(store, ID)) == 1
