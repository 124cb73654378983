"""A batch in Redis: the changes of its holder, and the refusal of all others."""

from __future__ import annotations

import json

import pytest

from shared.batches.lease import BatchLease, Commit, InFlightLine, log_store
from shared.batches.record import Batches, NewBatch
from shared.config.settings import Settings
from shared.errors import LeaseLost, NotFound, RequestError
from shared.log.events import End, Progress
from shared.log.ids import is_batch_id, is_generation_id, new_batch_id
from shared.queue.requeuing import requeue
from shared.redis import keys

ID = "batch_00000000000000000000000001"
SETTINGS = Settings(redis_url="redis://test", lease_s=3.0)
END = End("completed", "stop")


@pytest.fixture
def batches(redis):
    return Batches(redis, SETTINGS)


@pytest.fixture
def store(redis):
    return log_store(redis, SETTINGS)


def new(batch_id: str = ID, owner: str = "me", **fields) -> NewBatch:
    asked = {"endpoint": "/v1/chat/completions", "input_file_id": "file-1", "window": "24h"}
    return NewBatch(batch_id=batch_id, owner=owner, window_s=86_400.0, **asked | fields)


@pytest.fixture
async def lease(batches, store):
    await batches.create(new())
    lease = await BatchLease.begin(store, ID, "jobs-1")
    assert lease is not None
    await lease.move("validating", "in_progress", fields={"total": "3"})
    return lease


LINES = [InFlightLine(1, 0, 10), InFlightLine(2, 10, 10), InFlightLine(3, 20, 10)]


async def take_all(lease) -> None:
    assert await lease.take(LINES, before=0, line=3, offset=30)


async def taken_over(store, lease) -> BatchLease:
    """Let the lease expire, and let another holder begin."""
    await store.redis.hset(keys.meta(ID), "lease", "1")
    other = await BatchLease.begin(store, ID, "jobs-2")
    assert other is not None
    return other


async def events(store) -> list[dict]:
    found = await store.redis.xrange(keys.log(ID))
    return [json.loads(fields[b"e"]) for _, fields in found]


# Creating, reading


async def test_a_batch_is_created_once(batches):
    batch, is_new = await batches.create(new(metadata=b'{"a":"b"}', output_expires_s=60.0))
    again, is_new_again = await batches.create(new(endpoint="/v1/responses"))

    assert (is_new, is_new_again) == (True, False)
    assert batch == again
    assert (batch.status, batch.endpoint) == ("validating", "/v1/chat/completions")
    assert (batch.metadata, batch.output_expires_s) == (b'{"a":"b"}', 60.0)
    assert batch.expires_at_ms == batch.created_at_ms + 86_400_000
    assert await batches.redis.lrange(keys.JOBS_WAKE, 0, -1), "somebody is told"


async def test_only_its_owner_sees_a_batch(batches):
    await batches.create(new())

    assert (await batches.get(ID, "me")).id == ID
    for batch_id, owner in ((ID, "you"), ("batch_nosuchbatch", "me"), ("gen_0123456789", "me")):
        with pytest.raises(NotFound):
            await batches.get(batch_id, owner)


async def test_pages_are_newest_first_and_continue(batches):
    ids = []
    for number in range(5):
        ids.append(f"{ID}{number}")
        await batches.create(new(ids[-1]))
    await batches.create(new(f"{ID}x", owner="you"))
    places = {name: number for number, name in enumerate([*ids, "batch_long_gone"])}
    await batches.redis.zadd(keys.batches("me"), places)

    first, has_more = await batches.page("me", after="", limit=2)
    rest, has_more_yet = await batches.page("me", after=first[-1].id, limit=10)

    assert [b.id for b in first] == ids[:2:-1] and has_more
    assert [b.id for b in rest] == ids[2::-1] and not has_more_yet
    with pytest.raises(NotFound):
        await batches.page("me", after=f"{ID}x", limit=2)


async def test_a_key_names_one_batch(batches):
    assert await batches.reserve("me", "k", "digest", ID) == ID
    assert await batches.reserve("me", "k", "digest", "batch_other000") == ID
    assert await batches.reserve("you", "k", "digest", "batch_other000") == "batch_other000"
    with pytest.raises(RequestError) as said:
        await batches.reserve("me", "k", "other", ID)

    assert said.value.code == "idempotency_mismatch"


def test_a_batch_is_not_a_generation():
    batch_id = new_batch_id()

    assert is_batch_id(batch_id) and not is_generation_id(batch_id)
    assert not is_batch_id("gen_0123456789") and not is_batch_id("batch_ü0123456")


async def test_a_batch_is_never_queued(batches, store):
    """A node with readers requeues a generation that no worker holds."""
    await batches.create(new())

    await requeue(store, ID, "batch")

    assert not await store.redis.exists(keys.lane("resume"))


# The holder


async def test_a_batch_has_one_holder(store, lease):
    assert await BatchLease.begin(store, ID, "jobs-2") is None

    await lease.release()

    assert await BatchLease.begin(store, ID, "jobs-2") is not None


async def test_slices_do_not_count_as_failures(store, lease):
    for _ in range(20):
        await store.redis.hset(keys.meta(ID), "lease", "1")
        lease = await BatchLease.begin(store, ID, "jobs-1")
        assert lease is not None
        assert await lease.renew()


async def test_lines_are_taken_with_the_cursor(lease):
    await take_all(lease)

    batch = await lease.load()
    assert (batch.line, batch.offset) == (3, 30)
    assert await lease.flight() == LINES


async def test_taking_twice_takes_once(lease):
    await take_all(lease)
    await lease.commit(Commit(name="1", done=["1"]))

    await take_all(lease)

    assert await lease.flight() == LINES[1:]


async def test_lines_behind_another_cursor_are_not_taken(lease):
    await take_all(lease)

    with pytest.raises(LeaseLost):
        await lease.take([InFlightLine(9, 80, 10)], before=8, line=9, offset=90)
    assert await lease.flight() == LINES


async def test_a_cancelled_batch_takes_no_lines(batches, lease):
    await batches.cancel(ID)

    assert not await lease.take(LINES, before=0, line=3, offset=30)
    assert await lease.flight() == []


async def test_a_commit_counts_once(store, lease):
    await take_all(lease)
    commit = Commit(
        name="1", parts=["a.out", "a.err"], done=["1", "2"], again=["3", "20 10 1"],
        dead=['{"line":2,"offset":10,"length":10,"custom_id":"ü\\"","code":"x"}'],
        completed=1, failed=1, usage=(1, 2, 3), model="m",
        events=['{"type":"progress","stage":"x","current":1,"total":3,"percentage":33.3}'],
    )  # fmt: skip

    await lease.commit(commit)
    await lease.commit(commit)

    batch = await lease.load()
    assert (batch.completed, batch.failed, batch.model) == (1, 1, "m")
    assert batch.usage.total_tokens == 3
    assert await lease.flight() == [InFlightLine(3, 20, 10, 1)]
    assert await lease.parts() == ["a.out", "a.err"]
    letters = await Batches(store.redis, SETTINGS).dead_letters(ID, 0, 10)
    assert [(one.line, one.custom_id) for one in letters] == [(2, 'ü"')]
    assert [event["type"] for event in await events(store)] == ["start", "progress"]


async def test_a_line_that_is_asked_again_and_done_is_not_in_flight(lease):
    await take_all(lease)

    await lease.commit(Commit(name="1", done=["1"], again=["1", "0 10 1", "2", "10 10 1"]))

    assert await lease.flight() == [InFlightLine(2, 10, 10, 1), LINES[2]]


async def test_a_commit_may_move_the_cursor(lease):
    await lease.commit(Commit(name="1", failed=3, line=3, offset=30))

    batch = await lease.load()
    assert (batch.line, batch.offset, batch.failed) == (3, 30, 3)


async def test_a_batch_cannot_end_with_a_line_in_flight(lease):
    await take_all(lease)

    for after, said in (("finalizing", []), ("completed", [END])):
        with pytest.raises(LeaseLost):
            await lease.move("in_progress", after, events=said)
    assert (await lease.load()).status == "in_progress"


async def test_the_last_status_comes_with_the_end_of_the_log(store, lease):
    await take_all(lease)
    await lease.commit(Commit(name="1", done=["1", "2", "3"]))
    assert await lease.move("in_progress", "finalizing")
    said = [Progress("finalizing", 3, 3, 100.0), END]

    assert await lease.move(
        "finalizing", "completed", fields={"output_file_id": "file-2"}, events=said, kept_s=60
    )

    batch = await lease.load()
    assert (batch.status, batch.output_file_id, batch.is_final) == ("completed", "file-2", True)
    assert batch.times.keys() == {"in_progress", "finalizing", "completed"}
    assert [event["type"] for event in await events(store)] == ["start", "progress", "end"]
    assert not await lease.flight()
    assert 0 < await store.redis.pttl(keys.batch(ID)) <= 60_000
    assert not await lease.renew()


async def test_a_cancelled_batch_does_not_complete(batches, lease):
    await lease.move("in_progress", "finalizing")
    await batches.cancel(ID)

    assert not await lease.move("finalizing", "completed", events=[END])
    assert await lease.move("cancelling", "cancelled", events=[End("cancelled", "cancelled")])


async def test_an_ended_batch_does_not_change(batches, lease):
    await lease.move("in_progress", "completed", events=[END], kept_s=60)
    await batches.cancel(ID)

    assert (await batches.get(ID, "me")).status == "completed"


# Everybody else


async def test_a_former_holder_changes_nothing(store, lease):
    await take_all(lease)
    other = await taken_over(store, lease)
    before = await other.load()
    log = await events(store)

    for attempt in (
        lease.renew(),
        lease.take([InFlightLine(4, 30, 10)], before=3, line=4, offset=40),
        lease.commit(Commit(name="z", done=["1"], completed=1, parts=["z.out"])),
        lease.move("in_progress", "finalizing"),
        lease.move("in_progress", "completed", events=[END]),
    ):
        with pytest.raises(LeaseLost):
            await attempt

    assert await other.load() == before
    assert await other.flight() == LINES
    assert await other.parts() == []
    assert await events(store) == log


async def test_a_former_holder_cannot_release(store, lease):
    other = await taken_over(store, lease)

    await lease.release()

    assert await other.renew()


async def test_confirm_fails_after_another_holder_began(store, lease):
    await taken_over(store, lease)
    lease.confirmed_s -= SETTINGS.lease_s

    with pytest.raises(LeaseLost):
        await lease.confirm()


SAID = '{"type":"progress","stage":"x","current":1,"total":3,"percentage":33.3}'
SAID_AGAIN = SAID.replace("33.3", "33.4")


async def went_back(store, act) -> None:
    """Undo `act` in Redis, as after a lost file tail or a failover."""
    names = [key async for key in store.redis.scan_iter(f"tr:{{{ID}}}:*")]
    before = {name: await store.redis.dump(name) for name in names}
    await act()
    after = [key async for key in store.redis.scan_iter(f"tr:{{{ID}}}:*")]
    await store.redis.delete(*after)
    for name, raw in before.items():
        await store.redis.restore(name, 0, raw)


async def test_after_a_lost_commit_the_holder_cannot_continue(store, lease):
    """Otherwise an event id would have two contents, and the output would lack a done line."""
    await take_all(lease)
    await went_back(
        store, lambda: lease.commit(Commit(name="1", done=["1"], completed=1, events=[SAID]))
    )
    log, batch = await events(store), await lease.load()

    for attempt in (
        lease.commit(Commit(name="2", done=["2"], completed=1, events=[SAID_AGAIN])),
        lease.take([InFlightLine(4, 30, 10)], before=3, line=4, offset=40),
        lease.move("in_progress", "finalizing"),
    ):
        with pytest.raises(LeaseLost):
            await attempt

    assert (await events(store), await lease.load()) == (log, batch)
    assert await lease.flight() == LINES


async def test_after_a_lost_take_the_holder_cannot_continue(store, lease):
    """Otherwise a line would be taken again and be in the output twice."""
    await went_back(store, lambda: take_all(lease))

    for attempt in (
        lease.commit(Commit(name="1", done=["1"], completed=1, events=[SAID])),
        lease.commit(Commit(name="1", again=["1", "0 10 1"])),
        lease.commit(Commit(name="1", done=["4"], failed=1, before=3, line=4, offset=40)),
        lease.take([InFlightLine(4, 30, 10)], before=3, line=4, offset=40),
    ):
        with pytest.raises(LeaseLost):
            await attempt

    batch = await lease.load()
    assert (batch.completed, batch.failed, batch.line) == (0, 0, 0)
    assert await lease.flight() == []


async def test_a_lost_batch_has_no_holder(store, lease):
    await store.redis.flushall()

    with pytest.raises(LeaseLost):
        await lease.commit(Commit(name="1"))
    with pytest.raises(LeaseLost):
        await lease.load()
    assert await BatchLease.begin(store, ID, "jobs-2") is None
