"""Deleting a generation or a session: the text is gone, the usage stays, repeats do no harm."""

from __future__ import annotations

import pytest

from shared.config.settings import Settings
from shared.erasure.generations import GenerationEraser
from shared.erasure.sessions import erase_session
from shared.errors import Unavailable
from shared.later.webhooks import Webhook
from shared.log.event_bytes import DELETED
from shared.log.events import decode
from shared.log.records import Ended
from shared.log.store import Store
from shared.queue.accept import Acceptor, NewGeneration
from shared.queue.overview import owner_ids, session_ids
from shared.redis import keys
from shared.usage.ledger import day_of
from tests.support.generation import Holder
from tests.support.redis_contents import everything

TEXT = "a word that must be gone"
WEBHOOK = Webhook("https://example.com/hook", "whsec_" + "k" * 24)
SETTINGS = Settings(redis_url="redis://test", jwt_secret="s" * 32)


class Desk:
    """A store, an acceptor and an eraser on one Redis."""

    def __init__(self, redis):
        self.redis = redis
        self.store = Store(redis, SETTINGS)
        self.acceptor = Acceptor(redis, self.store, SETTINGS)
        self.eraser = GenerationEraser(redis, self.store, SETTINGS)

    async def accept(self, owner="alice", session="chat", key="", webhook=None):
        new = NewGeneration(
            owner=owner,
            model="demo",
            request=f'{{"messages":[{{"role":"user","content":"{TEXT}"}}]}}'.encode(),
            session=session,
            metadata=f'{{"note":"{TEXT}"}}'.encode(),
            prompt=TEXT,
            idempotency_key=key,
            body_digest="digest" if key else "",
            webhook=webhook,
        )
        return (await self.acceptor.accept(new)).generation_id

    async def erase(self, name, **how):
        meta = await self.store.meta(name)
        assert meta is not None
        await self.eraser.erase(meta, **how)

    async def prompts(self):
        today = day_of(await self.store.now_ms())
        ((rows),) = await self.eraser._settlement.ledger.rows(["alice"], today, today)
        return sum(row.figures.prompts for row in rows)


@pytest.fixture
def desk(redis):
    return Desk(redis)


async def test_nothing_of_an_ended_generation_is_left(desk, redis):
    name = await desk.accept(webhook=WEBHOOK)
    holder = await Holder.begin(desk.store, "mine", name)
    await holder.finish(TEXT)
    assert TEXT in await everything(redis)

    await desk.erase(name)

    left = await everything(redis)
    assert TEXT not in left and "example.com" not in left
    assert await owner_ids(redis, "alice", 10) == []
    assert await session_ids(redis, "alice", "chat", 10) == []
    assert await session_ids(redis, None, "chat", 10) == []
    meta = await desk.store.meta(name)
    assert meta is not None and meta.status == "sealed"


async def test_a_running_generation_ends_for_its_readers_and_its_worker_first(desk, redis):
    name = await desk.accept()
    holder = await Holder.begin(desk.store, "mine", name)
    await holder.say(TEXT)
    pubsub = redis.pubsub()
    await pubsub.subscribe(keys.live(name), keys.CANCEL, keys.DELETED)

    await desk.erase(name)

    said = []
    while (message := await pubsub.get_message(timeout=0.3)) is not None:
        if message["type"] == "message":
            said.append((message["channel"].decode(), message["data"].decode()))
    channels = [channel for channel, _ in said]
    assert channels == [keys.live(name), keys.CANCEL, keys.DELETED]
    assert '"status":"cancelled"' in said[0][1] and '"code":"deleted"' in said[0][1]
    assert said[2][1] == name
    assert isinstance(await holder.say("more", after=2), Ended)
    assert TEXT not in await everything(redis)
    await pubsub.aclose()


async def test_the_usage_of_a_deleted_generation_stays(desk):
    name = await desk.accept()
    await (await Holder.begin(desk.store, "mine", name)).finish("a", "b")

    await desk.erase(name)

    assert await desk.prompts() == 1


async def test_a_deletion_can_be_repeated_after_a_crash_at_any_step(desk, redis, monkeypatch):
    """A process dies at each call in turn; the next one begins from the start."""
    name = await desk.accept(webhook=WEBHOOK)
    await (await Holder.begin(desk.store, "mine", name)).say(TEXT)
    meta = await desk.store.meta(name)
    run_mixed = desk.store.scripts.run_mixed
    calls, dies_at = 0, 0

    async def dying(*args):
        nonlocal calls
        calls += 1
        if calls > dies_at:
            raise Unavailable("died")
        return await run_mixed(*args)

    monkeypatch.setattr(desk.store.scripts, "run_mixed", dying)
    while True:
        calls, dies_at = 0, dies_at + 1
        try:
            await desk.eraser.erase(meta)
        except Unavailable:
            meta = await desk.store.meta(name) or meta
            continue
        break

    assert dies_at > 1
    assert TEXT not in await everything(redis)
    assert await desk.prompts() == 1


async def test_a_repeat_with_the_key_of_a_deleted_generation_starts_nothing(desk):
    name = await desk.accept(key="k")
    await desk.erase(name)

    assert await desk.accept(key="k") == name
    meta = await desk.store.meta(name)
    assert meta is not None and meta.status == "sealed"


async def test_the_idempotency_key_is_deleted_when_its_owner_is_forgotten(desk, redis):
    name = await desk.accept(key="k")
    await desk.erase(name, forgets_key=True)

    assert [key async for key in redis.scan_iter("tr:idem:*")] == []


async def test_a_session_is_deleted_for_one_owner(desk, redis):
    mine = [await desk.accept() for _ in range(3)]
    other, elsewhere = await desk.accept("bob"), await desk.accept(session="t")

    assert await erase_session(desk.eraser, "alice", "chat") == 3

    for name in mine:
        meta = await desk.store.meta(name)
        assert meta is not None and meta.status == "sealed"
    for name in (other, elsewhere):
        meta = await desk.store.meta(name)
        assert meta is not None and meta.status == "queued"
    assert await session_ids(redis, None, "chat", 10) == [other]
    assert await erase_session(desk.eraser, "alice", "chat") == 0


def test_the_end_that_nodes_know_is_the_end_that_is_written():
    from shared.erasure.generations import _deleted
    from shared.log.events import End, encode

    assert encode(End("cancelled", "cancelled", error=_deleted())) == DELETED
    assert decode(DELETED).error.code == "deleted"
