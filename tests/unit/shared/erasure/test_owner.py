"""Forgetting an owner: no key names the owner or holds what was said, and others keep theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from shared.batches.lease import BatchLease, InFlightLine, log_store
from shared.batches.record import Batches, NewBatch, parts_prefix
from shared.cache.answers import AnswerCache, CacheRules
from shared.config.credentials import Identity
from shared.config.settings import Settings
from shared.erasure import owner as owner_module
from shared.erasure.owner import OwnerEraser
from shared.errors import LeaseLost, RequestError
from shared.files.store import FileStore
from shared.later.schedules import Schedule, Schedules, Timing
from shared.later.shares import Shares
from shared.later.token_owners import is_planner, note_planner
from shared.later.webhooks import Webhook, encode_webhook
from shared.log.store import Store
from shared.queue.accept import Acceptor, NewGeneration
from shared.queue.chats import Chats
from shared.queue.endings import cancel
from shared.queue.janitor import Janitor
from shared.redis import keys
from tests.support.generation import Holder
from tests.support.redis_contents import everything

OWNER, OTHER = "erin-of-the-marker", "otto-who-stays"
TEXT = "marked-text"
HOOK = Webhook(f"https://example.com/{TEXT}", "whsec_" + "k" * 24)
# Keys that are there whoever asks.
OF_NOBODY = {
    *(keys.lane(lane) for lane in keys.LANES),
    keys.JOBS_WAKE,
    keys.JOBS_COUNTS,
    keys.janitor(),
    keys.PARTITIONS,
}
BATCH, OTHER_BATCH = "batch_00000000000000000000000001", "batch_00000000000000000000000002"


class Office:
    """Everything that an owner can leave behind, on one Redis and one directory."""

    def __init__(self, redis, directory):
        self.settings = Settings(
            redis_url="redis://test", data_dir=str(directory), jwt_secret="s" * 32
        )
        self.redis, self.directory = redis, directory
        self.store = Store(redis, self.settings)
        self.acceptor = Acceptor(redis, self.store, self.settings)
        self.files = FileStore(redis, self.settings)
        self.schedules = Schedules(redis, 10)
        self.batches = Batches(redis, self.settings)
        self.eraser = OwnerEraser(redis, self.store, self.files, self.settings)

    async def accept(self, owner, **changes):
        new = NewGeneration(
            owner=owner, model="demo", session=f"{TEXT} of {owner}", prompt=TEXT,
            request=f'{{"messages":[{{"role":"user","content":"{TEXT}"}}]}}'.encode(),
            metadata=f'{{"a":"{TEXT}"}}'.encode(), dialect=f'{{"b":"{TEXT}"}}'.encode(),
        )  # fmt: skip
        return (await self.acceptor.accept(replace(new, **changes))).generation_id

    async def fill(self, owner, batch_id):
        """Let an owner do everything once."""
        ended = await self.accept(
            owner, idempotency_key="k", body_digest="d", webhook=HOOK, grace_s=5.0
        )
        await (await Holder.begin(self.store, "t", ended)).finish(TEXT)
        rules, cache = CacheRules(60.0, 10), AnswerCache(self.redis)
        for key in "xy":
            raw = f'{{"answer":"{TEXT}"}}'.encode()
            named = keys.digest_of(key + owner)
            await cache.store("demo", named, raw, rules, owner=owner, generation=ended)
        # Only the walk through all keys finds the first one: its generation names the second.
        cancelled = await self.accept(owner, webhook=HOOK)
        await cancel(self.store, cancelled)
        running = await self.accept(owner, request=b'{"messages":[]}' + b" " * 600_000)
        await self.store.attach_readers(running, "n1")
        await (await Holder.begin(self.store, "u", running)).say(TEXT)
        chats = Chats(self.redis, self.store, self.settings)
        await chats.add(f"{TEXT}", await self.store.meta(running), 0)
        await chats.stop(owner, "an empty chat")
        await Shares(self.redis).create(Identity(owner), session=f"{TEXT} of {owner}", ttl_s=60)
        await note_planner(self.redis, owner, 1_700_000_000)
        schedule = Schedule(
            f"sched_{owner[:4]}00000000", owner, "generation", TEXT.encode(), Timing(2**42), 0,
            2**42, 0, "", None,
        )  # fmt: skip
        await self.schedules.add(schedule, key="k", digest="d")
        file = await self.files.create(owner, TEXT, "batch", pieces(TEXT), bytes_max=99)
        await self.batches.reserve(owner, "k", "d", batch_id)
        await self.batches.create(
            NewBatch(
                batch_id, owner, "/v1/responses", file.id, "24h", 60.0,
                metadata=f'{{"a":"{TEXT}"}}'.encode(), webhook=encode_webhook(HOOK),
            )
        )  # fmt: skip
        await self.files.put_object(parts_prefix(batch_id) + "1", TEXT.encode())
        line = NewGeneration(owner, "demo", TEXT.encode(), batch_id, priority="batch", wait_s=9.0)
        await self.acceptor.accept_lines([(f"gen_line_{owner[:4]}", line)], is_repeat=False)
        await Janitor(self.redis, self.store, self.settings).sweep()

    async def forget(self, owner=OWNER, **how):
        """Do all steps, and return the sums and the number of steps."""
        deleted, after, steps = {}, "", 0
        while True:
            step = await self.eraser.step(owner, after, **how)
            for kind, number in step.deleted.items():
                deleted[kind] = deleted.get(kind, 0) + number
            steps += 1
            if not step.next:
                return {kind: number for kind, number in deleted.items() if number}, steps
            after = step.next

    def objects(self):
        """The names and contents of all files below the directory."""
        found = [path for path in Path(self.directory).rglob("*") if path.is_file()]
        return "\n".join(f"{path} {path.read_bytes()!r}" for path in found)


async def pieces(text):
    yield text.encode()


@pytest.fixture
async def office(redis, tmp_path) -> AsyncIterator[Office]:
    yield Office(redis, tmp_path)


async def test_no_key_and_no_file_has_the_owners_name_or_text_afterwards(office, redis):
    await office.fill(OWNER, BATCH)
    before = await everything(redis)
    assert OWNER in before and TEXT in before and TEXT in office.objects()

    deleted, _ = await office.forget()

    left = await everything(redis)
    assert OWNER not in left
    assert TEXT not in left
    assert TEXT not in office.objects()
    assert deleted == {
        "batches": 1, "cached": 1, "files": 1, "generations": 4, "schedules": 1, "shares": 1,
        "usage": 1,
    }  # fmt: skip
    assert await office.forget() == ({}, 7), "a second walk finds nothing"


async def test_all_keys_that_remain_of_an_owner_expire(office, redis):
    await office.fill(OWNER, BATCH)
    await office.forget()

    for line in (await everything(redis)).splitlines():
        name = line.split("'")[1]
        if name not in OF_NOBODY:
            assert await redis.pttl(name) > 0, name


async def test_another_owner_keeps_everything(office, redis):
    await office.fill(OTHER, OTHER_BATCH)
    before = {line.split(" ")[0] for line in (await everything(redis)).splitlines()}
    files = office.objects()
    await office.fill(OWNER, BATCH)

    await office.forget()

    left = await everything(redis)
    after = {line.split(" ")[0] for line in left.splitlines()}
    gone = {name[2:-1] for name in before - after}
    assert gone <= OF_NOBODY  # the lock of the janitor expires by itself
    assert files in office.objects() or set(files.splitlines()) <= set(
        office.objects().splitlines()
    )
    assert await is_planner(redis, OTHER, 1_700_000_001)


async def test_the_usage_stays_if_it_is_asked_for(office):
    await office.fill(OWNER, BATCH)

    deleted, _ = await office.forget(keeps_usage=True)

    assert "usage" not in deleted
    assert await office.eraser.ledger.owners() == [OWNER]


async def test_a_walk_of_many_steps_finds_everything(office, redis, monkeypatch):
    monkeypatch.setattr(owner_module, "STEP_S", 0.0)
    monkeypatch.setattr(owner_module, "SCAN_COUNT", 1)
    await office.fill(OWNER, BATCH)
    names = iter(("schedules", "batches", "generations", "files", "shares", "streams"))
    with monkeypatch.context() as patch:  # no index leads to anything: only the walk is left
        for name in names:
            patch.setattr(office.eraser, f"_{name}", nothing)
        patch.setattr(owner_module, "STEP_S", 0.5)
        assert (await office.eraser.step(OWNER, "streams")).next == "walk-0"
    after, steps = "walk-0", 0
    while after:
        after = (await office.eraser.step(OWNER, after)).next
        steps += 1

    left = await everything(redis)
    assert OWNER not in left and TEXT not in left and TEXT not in office.objects()


async def nothing(owner):
    return 0


async def test_the_holder_of_a_deleted_batch_writes_nothing_more(office, redis):
    await office.fill(OWNER, BATCH)
    lease = await BatchLease.begin(log_store(redis, office.settings), BATCH, "jobs-1")
    assert lease is not None
    await lease.move("validating", "in_progress", fields={"total": "1"})

    await office.forget()

    with pytest.raises(LeaseLost):
        await lease.take([InFlightLine(1, 0, 10)], before=0, line=1, offset=10)
    assert not await redis.exists(keys.batch(BATCH), keys.batch_flight(BATCH))


async def test_a_generation_that_starts_during_the_walk_is_deleted_by_the_next_walk(office, redis):
    await office.fill(OWNER, BATCH)
    await office.eraser.step(OWNER, "generations")
    await office.accept(OWNER)

    await office.forget()

    assert OWNER not in await everything(redis)


@pytest.mark.parametrize("name", ["walk", "walk-", "walk-x", "usage", "files "])
async def test_an_unknown_step_is_refused(office, name):
    with pytest.raises(RequestError) as caught:
        await office.eraser.step(OWNER, name)

    assert caught.value.status == 422
