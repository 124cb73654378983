"""A chat's generations: found, stopped, and prompts that are accepted during a stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import fakeredis
import pytest

from shared.config.credentials import Identity
from shared.config.settings import Settings
from shared.log.records import Meta
from shared.log.store import Store
from shared.queue import chats, old_ids
from shared.queue.accept import Accepted, Acceptor, NewGeneration
from shared.queue.chats import Chats
from shared.queue.endings import cancel
from shared.redis import keys

REQUEST = b'{"messages":[]}'
CHAT = "a chat/ü\n"
# In the product 100 each: more than one page and more than the newest would take a second each.
RUNS_MAX = 6
STOP_PAGE = 7


class Place:
    """Chats with a store and an acceptor."""

    def __init__(self) -> None:
        self.redis = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
        settings = Settings()
        self.store = Store(self.redis, settings)
        self.acceptor = Acceptor(self.redis, self.store, settings)
        self.chats = Chats(self.redis, self.store, settings)

    async def accept(self, owner: str = "alice") -> Meta:
        new = NewGeneration(owner=owner, model="demo", request=REQUEST)
        accepted: Accepted = await self.acceptor.accept(new)
        meta = await self.store.meta(accepted.generation_id)
        assert meta is not None
        return meta

    async def start(self, owner: str = "alice", chat: str = CHAT) -> str:
        stops = await self.chats.stops(owner, chat)
        meta = await self.accept(owner)
        await self.chats.add(chat, meta, stops)
        return meta.generation_id

    async def running(self, owner: str = "alice", chat: str = CHAT) -> str | None:
        meta = await self.chats.running(Identity(owner), chat)
        return meta.generation_id if meta else None

    async def status(self, generation_id: str) -> str:
        meta = await self.store.meta(generation_id)
        assert meta is not None
        return meta.status


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(chats, "RUNS_MAX", RUNS_MAX)
    monkeypatch.setattr(chats, "STOP_PAGE", STOP_PAGE)
    made = Place()
    yield made
    await made.redis.aclose()


async def test_running_returns_the_newest_unfinished_generation(place: Place) -> None:
    assert await place.running() is None
    first = await place.start()
    assert await place.running() == first
    # Redis orders what was made in one millisecond by name.
    names = {first, await place.start()}
    assert await place.running() in names
    assert {meta.generation_id for meta in await place.chats.runs(Identity("alice"), CHAT)} == names


async def test_running_ignores_ended_generations(place: Place) -> None:
    ids = [await place.start(), await place.start()]
    await cancel(place.store, ids[1])
    assert await place.running() == ids[0]
    await cancel(place.store, ids[0])
    assert await place.running() is None
    assert len(await place.chats.runs(Identity("alice"), CHAT)) == 2


async def test_a_chat_belongs_to_one_owner(place: Place) -> None:
    theirs = await place.start("bob")
    assert await place.running("alice") is None
    await place.chats.stop("alice", CHAT)
    assert await place.running("bob") == theirs
    assert await place.running("bob", "another") is None


async def test_a_stop_cancels_every_unfinished_generation_and_may_be_repeated(place: Place) -> None:
    ids = [await place.start(), await place.start()]
    assert await place.chats.stop("alice", CHAT) == 2
    assert [await place.status(name) for name in ids] == ["cancelled", "cancelled"]
    assert await place.chats.stop("alice", CHAT) == 0
    assert await place.running() is None


async def test_a_prompt_after_a_stop_is_not_cancelled(place: Place) -> None:
    await place.start()
    await place.chats.stop("alice", CHAT)
    fresh = await place.start()
    assert await place.running() == fresh


@pytest.mark.parametrize("is_accepted_before", [True, False])
async def test_a_stop_cancels_a_prompt_that_is_being_accepted(
    place: Place, is_accepted_before: bool
) -> None:
    stops = await place.chats.stops("alice", CHAT)
    if is_accepted_before:
        meta = await place.accept()
        await place.chats.stop("alice", CHAT)
    else:
        await place.chats.stop("alice", CHAT)
        meta = await place.accept()
    await place.chats.add(CHAT, meta, stops)

    assert await place.status(meta.generation_id) == "cancelled"
    assert await place.running() is None


async def test_a_stop_cancels_more_generations_than_a_page_holds(place: Place) -> None:
    ids = [await place.start() for _ in range(2 * STOP_PAGE + 5)]
    assert await place.chats.stop("alice", CHAT) == len(ids)
    statuses = await place.store.statuses(ids)
    assert statuses == ["cancelled"] * len(ids)


async def test_a_stop_cancels_an_old_generation_behind_many_ended_ones(place: Place) -> None:
    oldest = await place.start()
    for _ in range(RUNS_MAX + 5):
        await cancel(place.store, await place.start())
    assert await place.chats.stop("alice", CHAT) == 1
    assert await place.status(oldest) == "cancelled"


async def test_after_a_stop_the_index_holds_the_newest_and_expires(place: Place) -> None:
    for _ in range(RUNS_MAX + 5):
        await place.start()
    await place.chats.stop("alice", CHAT)
    kept = await place.redis.keys("tr:{chat:*")
    assert len(kept) == 2
    assert await place.redis.zcard(keys.chat_runs("alice", CHAT)) == RUNS_MAX
    assert len(await place.chats.runs(Identity("alice"), CHAT)) == RUNS_MAX
    assert all([await place.redis.pttl(key) > 0 for key in kept])


async def test_the_index_drops_old_generations_that_are_absent(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_ids, "OLD_MAX", 1)
    old = replace(await place.accept(), created_at_ms=1)
    await place.chats.add(CHAT, old, 0)
    await place.chats.add(CHAT, replace(old, generation_id="gen_gone0000"), 0)
    new = await place.start()
    found = await place.redis.zrange(keys.chat_runs("alice", CHAT), 0, -1)
    assert found == [old.generation_id.encode(), new.encode()]


async def test_a_stop_finds_an_unfinished_generation_however_old(place: Place) -> None:
    old = replace(await place.accept(), created_at_ms=1)
    await place.chats.add(CHAT, old, 0)
    await place.start()
    assert await place.chats.stop("alice", CHAT) == 2
    assert await place.status(old.generation_id) == "cancelled"
