"""Rounds: remains of a crash or a loss are found, counted and mended; nothing else changes."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from jobs import index_janitor, janitor
from jobs.index_janitor import IndexJanitor
from jobs.janitor import Rounds, make_round, round_cron
from shared.batches.record import Batches, NewBatch
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.files import sweep, walk
from shared.files.store import FileStore
from shared.later.schedules import Schedules
from shared.later.webhooks import Webhook, read_record, register
from shared.log.store import Store
from shared.queue.accept import Acceptor, NewGeneration
from shared.queue.lanes import Queue
from shared.queue.overview import owner_ids, session_ids
from shared.redis import keys
from shared.redis.counts import COUNTERS, read_counts
from shared.streams.store import NewStream, StreamStore, owner_of
from shared.streams.sweep import note_owner
from tests.support.generation import ID, lose
from tests.unit.shared.later.test_schedules import schedule

HOUR_S = 3_600
HOOK = Webhook("https://example.com/hook", "a secret that is long")


@pytest.fixture
def redis(real_redis):
    return real_redis


@pytest.fixture
def settings(tmp_path):
    return Settings(redis_url="redis://test", data_dir=str(tmp_path))


@pytest.fixture
def store(redis, settings):
    return Store(redis, settings)


@pytest.fixture
def files(redis, settings):
    return FileStore(redis, settings)


@pytest.fixture
def rounds(redis, files, settings, monkeypatch):
    monkeypatch.setattr(index_janitor, "ABSENT_TWICE_S", 0)
    return Rounds(redis, files, settings)


async def accept(store, session="chat"):
    acceptor = Acceptor(store.redis, store, store.settings)
    new = NewGeneration("alice", "demo", b'{"messages":[]}', session=session)
    return (await acceptor.accept(new)).generation_id


async def counted(redis):
    counts, _ = await read_counts(redis)
    return {name: number for name, number in counts.items() if number}


async def test_a_round_changes_nothing_that_is_in_order(rounds, store, redis):
    generation_id = await accept(store)
    await Schedules(redis, 9).add(schedule(next_ms=10**14))
    await register(redis, generation_id, "generation", HOOK, {})
    before = {key: await redis.dump(key) async for key in redis.scan_iter("*")}

    assert not await rounds.make()
    assert {key: await redis.dump(key) async for key in redis.scan_iter("*")} == before


# Files


async def one_piece():
    yield b"{}\n"


def age(path):
    old = time.time() - 2 * HOUR_S
    os.utime(path, (old, old))


async def test_files_without_a_record_are_deleted(rounds, files, redis, tmp_path):
    kept = await files.create("alice", "a.jsonl", "batch", one_piece(), expires_s=None, bytes_max=9)
    lost = await files.create("alice", "b.jsonl", "batch", one_piece(), expires_s=None, bytes_max=9)
    await redis.delete(keys.file(lost.id))
    for path in (tmp_path / "files").rglob("*"):
        age(path)

    found = await rounds.make()

    assert found["files_orphaned"] == 1
    assert await counted(redis) == dict(found)
    assert [path.name for path in (tmp_path / "files").rglob("file-*")] == [kept.id]


async def batch(redis, settings, batch_id):
    new = NewBatch(batch_id, "alice", "/v1/responses", "file-x", "24h", 86_400)
    await Batches(redis, settings).create(new)


async def test_parts_of_absent_batches_are_deleted(rounds, files, redis, settings, tmp_path):
    running, gone = "batch_running00", "batch_gone00000"
    await batch(redis, settings, running)
    for batch_id in (running, gone):
        await files.objects.put(f"batches/{batch_id}/1-1.out", b"{}\n")
    assert not await rounds.make(), "it may be on its way: what is young is left"
    for path in (tmp_path / "files" / "batches").rglob("*.out"):
        age(path)

    found = await rounds.make()

    assert found == {"batch_parts_orphaned": 1}
    assert [path.parent.name for path in (tmp_path / "files").rglob("*.out")] == [running]


# Consumers


@pytest.fixture
async def queue(redis):
    queue = Queue(redis, "gone-worker")
    await queue.ensure_groups()
    return queue


async def consumers(redis, lane="interactive"):
    rows = await redis.xinfo_consumers(keys.lane(lane), keys.GROUP)
    return {row["name"].decode() for row in rows}


async def test_an_idle_consumer_without_entries_is_dropped(rounds, queue, redis, monkeypatch):
    await queue.read("interactive", 1)
    await redis.xgroup_createconsumer(keys.lane("interactive"), keys.GROUP, "gone-worker")
    assert not await rounds.make()
    assert await consumers(redis) == {"gone-worker"}
    monkeypatch.setattr(janitor, "CONSUMER_IDLE_S", 0.0)

    found = await rounds.make()

    assert found == {"consumers_dropped": 1}
    assert await consumers(redis) == set()


async def test_a_consumer_that_holds_an_entry_stays(rounds, queue, store, redis, monkeypatch):
    """Redis would delete its entry with it."""
    await accept(store)
    assert await queue.read("interactive", 1)
    monkeypatch.setattr(janitor, "CONSUMER_IDLE_S", 0.0)

    assert not await rounds.make()
    assert await consumers(redis) == {"gone-worker"}


async def test_a_consumer_that_reads_an_entry_during_the_round_stays(
    rounds, queue, store, redis, monkeypatch
):
    """It was idle at first; the script checks again in the step that removes it."""
    await redis.xgroup_createconsumer(keys.lane("interactive"), keys.GROUP, "gone-worker")
    lane, args = keys.lane("interactive"), [keys.GROUP, "gone-worker", 0]
    await accept(store)
    await queue.read("interactive", 1)

    assert await rounds.scripts.run("consumer_drop", [lane], args) == 0
    assert await rounds.scripts.run("consumer_drop", [lane], [keys.GROUP, "nobody", 0]) == 0
    assert await consumers(redis) == {"gone-worker"}


async def test_a_consumer_that_is_active_during_the_round_stays(rounds, queue, redis):
    await redis.xgroup_createconsumer(keys.lane("interactive"), keys.GROUP, "gone-worker")
    lane, args = keys.lane("interactive"), [keys.GROUP, "gone-worker", 60_000]

    assert await rounds.scripts.run("consumer_drop", [lane], args) == 0


async def test_without_a_group_no_consumer_is_dropped(rounds):
    assert (await rounds.drop_consumers()).total() == 0


# Indexes


async def test_index_entries_of_absent_generations_are_dropped(rounds, store, redis):
    kept, gone = await accept(store), await accept(store)
    await redis.zadd(keys.chat_runs("alice", "c"), {gone: 1, kept: 2})
    await redis.set(keys.chat_stops("alice", "c"), 1)
    await lose(store, gone)

    found = await rounds.make()

    assert found == {"index_entries_dropped": 3}
    assert await owner_ids(redis, "alice", 9) == [kept]
    assert await session_ids(redis, "alice", "chat", 9) == [kept]


async def test_a_generation_restored_between_the_checks_keeps_its_entries(
    rounds, store, redis, monkeypatch
):
    """A worker restores a generation that Redis has lost."""
    generation_id = await accept(store)
    fields = await redis.hgetall(keys.meta(generation_id))
    await lose(store, generation_id)

    async def restore(_):
        await redis.hset(keys.meta(generation_id), mapping=fields)

    monkeypatch.setattr(index_janitor.asyncio, "sleep", restore)

    assert not await rounds.make()
    assert await owner_ids(redis, "alice", 9) == [generation_id]


async def test_a_large_index_is_checked_completely(rounds, store, redis, monkeypatch):
    monkeypatch.setattr(index_janitor, "PAGE", 3)
    kept = [await accept(store) for _ in range(4)]
    await redis.zadd(keys.owner("alice"), {f"gen_gone{number:04}": number for number in range(9)})

    assert await rounds.make() == {"index_entries_dropped": 9}
    assert set(await owner_ids(redis, "alice", 99)) == set(kept)


@pytest.mark.parametrize(
    ("bound", "value"), [("SCANS_PER_ROUND", 1), ("SCAN_S", 0.0)], ids=["scans", "time"]
)
async def test_the_key_space_is_walked_in_parts(redis, monkeypatch, bound, value):
    """Each part drops what it has found, and the next round continues."""
    monkeypatch.setattr(index_janitor, "ABSENT_TWICE_S", 0)
    monkeypatch.setattr(index_janitor, bound, value)
    monkeypatch.setattr(index_janitor, "SCAN_COUNT", 2)
    for number in range(40):
        await redis.zadd(keys.owner(f"owner-{number}"), {ID: 1})
    indexes = IndexJanitor(redis)
    parts = [await indexes.mend() for _ in range(100)]

    assert sum(part["index_entries_dropped"] for part in parts) == 40
    assert max(part["index_entries_dropped"] for part in parts) < 40


async def test_schedules_that_no_index_names_are_due_again(rounds, redis):
    schedules = Schedules(redis, 1)
    one = schedule()
    await schedules.add(one)
    await redis.delete(
        keys.SCHEDULES, keys.schedules_of("alice"), keys.schedules_unfinished("alice")
    )

    assert await rounds.make() == {"schedules_mended": 1}
    assert await schedules.due(10_000, 9) == [(one.id, 1_000)]
    assert len(await schedules.page("alice", 9, before_ms=None)) == 1
    assert (await schedules.add(schedule(2))).how == "full"


async def test_absent_schedules_do_not_count_towards_the_limit(rounds, redis):
    schedules = Schedules(redis, 1)
    await schedules.add(schedule(1))
    await redis.delete(keys.schedule(schedule(1).id))
    assert (await schedules.add(schedule(2))).how == "full"

    assert await rounds.make() == {"schedules_mended": 1}
    assert (await schedules.add(schedule(2))).how == "ok"
    assert await redis.zcard(keys.schedules_of("alice")) == 1


@pytest.mark.parametrize("state", ["waiting", "due"])
async def test_webhooks_that_no_index_names_are_indexed_again(rounds, store, redis, state):
    await register(redis, ID, "generation", HOOK, {})
    if state == "due":
        await redis.hset(keys.hook(ID), mapping={"state": "due", "host": HOOK.host})
    await redis.delete(keys.HOOKS_WAITING)

    assert await rounds.make() == {"webhooks_mended": 1}
    assert (await read_record(redis, ID)).state == state
    name = keys.HOOKS_WAITING if state == "waiting" else keys.hooks_due(HOOK.host)
    assert await redis.zscore(name, ID)
    assert (await redis.zcard(keys.HOOKS_HOSTS)) == (state == "due")


async def test_a_delivered_webhook_is_not_changed(rounds, redis):
    await redis.hset(keys.hook(ID), mapping={"state": "done", "host": HOOK.host})

    assert not await rounds.make()


async def test_readers_of_an_older_version_expire(rounds, redis):
    await redis.zadd(keys.readers(ID), {"-": 1})
    await redis.zadd(keys.readers("gen_second00"), {"node": 1})
    await redis.pexpire(keys.readers("gen_second00"), 5_000)

    assert not await rounds.make()

    assert 0 < await redis.pttl(keys.readers(ID))
    assert await redis.pttl(keys.readers("gen_second00")) <= 5_000


# The round itself


async def test_a_check_that_fails_stops_no_other(rounds, store, redis, caplog, monkeypatch):
    async def away():
        raise Unavailable("the file store is away")

    monkeypatch.setattr(rounds, "drop_files", away)
    await lose(store, await accept(store))

    assert await rounds.make() == {"index_entries_dropped": 2}
    assert "round cut short" in caplog.messages


async def test_a_listing_that_hangs_stops_no_other_check(
    rounds, store, redis, files, settings, caplog, monkeypatch
):
    async def hangs(prefix=""):
        yield await asyncio.Event().wait()

    monkeypatch.setattr(files.objects, "list", hangs)
    monkeypatch.setattr(janitor, "CHECK_S_MAX", 0.3)
    await lose(store, await accept(store))
    streams, owner = StreamStore(redis, settings), owner_of("alice")
    await note_owner(streams, owner)
    await streams.create(
        owner, "/over", NewStream(content_type="text/plain", media="text/plain", ttl_s="0")
    )

    found = await rounds.make()

    assert found == {"index_entries_dropped": 2, "streams_expired": 1}
    cut = [entry.check for entry in caplog.records if entry.message == "round cut short"]
    assert cut == ["files", "parts", "audit"]


async def test_a_long_listing_goes_on_in_the_next_round(rounds, files, monkeypatch):
    monkeypatch.setattr(walk, "PART_S", 0.0)
    for number in range(3):
        await files.objects.put(f"audit/{'0' * 40}/1/2020-01-01/gen_{number}.json", b"{}")

    assert [await rounds.make() for _ in range(3)] == [{"audit_expired": 1}] * 3
    assert [info async for info in files.objects.list("audit")] == []
    assert not await rounds.make()


async def test_arq_gets_the_number_of_findings(rounds, store):
    await lose(store, await accept(store))

    assert await make_round({"rounds": rounds}) == 2


def test_a_round_times_out_before_the_next_one():
    job = round_cron()

    assert job.timeout_s < janitor.ROUND_MINUTES * 60
    assert 6 * janitor.CHECK_S_MAX < janitor.ROUND_S_MAX
    files_s = sweep.EXPIRED_S + walk.PART_S
    for check_s in (files_s, index_janitor.SCAN_S + index_janitor.ABSENT_TWICE_S):
        assert check_s + 9 < janitor.CHECK_S_MAX, "a check ends before it is broken off"
    assert job.minute == set(range(0, 60, 5)) and job.second == 30


async def test_every_finding_has_a_counter(rounds, redis):
    counts, _ = await read_counts(redis)

    assert set(counts) == set(COUNTERS)
