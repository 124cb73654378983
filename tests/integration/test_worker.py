"""A worker in this process on a real server: from the queue to the end, and every other way out."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from shared.config.models import Model
from shared.errors import BackendError
from shared.log.events import Counts, Token, Usage, decode
from shared.log.ids import START
from shared.log.records import Begun
from shared.queue.endings import CANCELLED, cancel
from shared.queue.lanes import Queue, encode_entry, put_back, queue_depths, workers_seen
from shared.redis import keys
from shared.redis.client import REDIS_ANSWER_S
from tests.support.stage import DEADLINE_S, ScriptedBackend, Stage
from tests.support.wait import until
from workers import run as run_module
from workers import worker as worker_module
from workers.backends.contract import Finish

LONG_S = 60.0


@pytest.fixture
def url(redis_server, real_redis):
    """The real server's, empty."""
    return redis_server.url


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(run_module, "RETRY_PAUSE_S", 0.01)


def says(*texts):
    """A play that says these pieces, whatever the prefix, and finishes."""

    async def play(prefix):
        for text in texts:
            yield [Token(text)]
        yield [Finish("stop")]

    return play


def fails(*texts, **error):
    async def play(prefix):
        for text in texts:
            yield [Token(text)]
        raise BackendError(error.pop("code", "upstream_error"), "it broke", **error)

    return play


def says_and_waits(gate, before, *after):
    """Says `before`, waits for the gate (an event), says the rest and finishes."""

    async def play(prefix):
        yield [Token(before)]
        await gate.wait()
        for text in after:
            yield [Token(text)]
        yield [Finish("stop")]

    return play


def breaks_off(*texts):
    async def play(prefix):
        for text in texts:
            yield [Token(text)]

    return play


async def nothing_left(stage):
    """Neither entries nor index members: all that was queued is over."""

    async def is_left():
        lanes = [await stage.redis.xlen(keys.lane(lane)) for lane in keys.LANES]
        return not any(lanes) and not any((await queue_depths(stage.redis)).values())

    await until(is_left, DEADLINE_S, "empty queues and indexes")


# The plain way


async def test_an_answer_is_whole_and_leaves_nothing_behind(url):
    async def play(prefix):
        yield []
        for text in ("Hel", "lo ", "wörld"):
            yield [Token(text)]
        yield [Usage(3, 4, 7), Finish("length")]

    async with Stage(url, play) as stage:
        await stage.start()
        generation_id = await stage.ask(session="chat")
        meta = await stage.ended(generation_id)

        events = await stage.events(generation_id)
        assert await stage.text(generation_id) == "Hello wörld"
        kinds = [type(event).__name__ for event in events if not isinstance(event, Token)]
        assert kinds == ["Start", "Usage", "End"]
        end = decode(meta.end)
        assert (end.status, end.finish_reason, end.usage, end.error) == (
            "completed",
            "length",
            Counts(3, 4, 7),
            None,
        )
        assert (meta.attempt, meta.failures) == (1, 0)
        assert (stage.backend.prefixes, stage.backend.seeds) == ([""], [generation_id])
        await nothing_left(stage)
        assert stage.backend.open == 0


async def test_an_answer_that_is_over_at_once_is_never_noted_as_running(url, monkeypatch):
    noted = []

    async def note(queue, ticket, now_ms):
        noted.append(ticket.id)

    monkeypatch.setattr(Queue, "note_begun", note)
    monkeypatch.setattr(run_module, "NOTED_AFTER_S", DEADLINE_S)
    async with Stage(url, says("a")) as stage:
        await stage.start()
        await stage.ended(await stage.ask())
        await nothing_left(stage)

        assert not noted


async def test_an_answer_that_fails_for_now_is_noted_before_it_is_put_off(url, monkeypatch):
    monkeypatch.setattr(run_module, "NOTED_AFTER_S", DEADLINE_S)
    async with Stage(url, breaks_off("a"), says("b")) as stage:
        worker = await stage.start()
        steps = []
        for name in ("note_begun", "try_later"):
            step = getattr(worker.queue, name)

            async def told(*args, name=name, step=step):
                steps.append(name)
                await step(*args)

            monkeypatch.setattr(worker.queue, name, told)
        await stage.ended(await stage.ask())

        assert steps == ["note_begun", "try_later"]


async def test_many_at_once_are_all_whole(url):
    texts = [f"piece {n} " for n in range(20)]
    async with Stage(url, says(*texts)) as stage:
        await stage.start()
        ids = [await stage.ask() for _ in range(30)]
        for generation_id in ids:
            await stage.ended(generation_id)

            assert await stage.text(generation_id) == "".join(texts)
        await nothing_left(stage)


async def test_a_worker_that_comes_later_finds_what_waits(url):
    async with Stage(url, says("a")) as stage:
        ids = [await stage.ask(), await stage.ask(priority="batch")]
        await stage.start()
        for generation_id in ids:
            await stage.ended(generation_id)


# Failures of the backend


async def test_after_a_failure_it_goes_on_from_what_was_said(url):
    async with Stage(url, fails("Hel"), says("lo")) as stage:
        await stage.start()
        generation_id = await stage.ask()
        meta = await stage.ended(generation_id)

        assert await stage.said(generation_id) == ["start", "Hel", "start", "lo", "end"]
        assert stage.backend.prefixes == ["", "Hel"]
        assert (meta.status, meta.attempt, meta.failures) == ("completed", 2, 1)
        await nothing_left(stage)


async def test_where_it_cannot_go_on_it_starts_again(url):
    async with Stage(url, fails("void"), says("good"), on_takeover="restart") as stage:
        await stage.start()
        generation_id = await stage.ask()
        await stage.ended(generation_id)

        said = await stage.said(generation_id)
        assert said == ["start", "void", "start", "reset", "good", "end"]
        assert stage.backend.prefixes == ["", ""]


async def test_where_it_may_not_it_ends(url):
    async with Stage(url, fails("a"), on_takeover="fail") as stage:
        await stage.start()
        generation_id = await stage.ask()
        end = decode((await stage.ended(generation_id)).end)

        assert (end.status, end.error.code, end.error.retryable) == (
            "failed",
            "upstream_error",
            True,
        )
        assert await stage.said(generation_id) == ["start", "a", "end"]


async def test_a_failure_that_another_try_cannot_mend_ends_it(url):
    """A 4xx other than 408 and 429."""
    async with Stage(url, fails(code="upstream_refused", retryable=False)) as stage:
        await stage.start()
        generation_id = await stage.ask()
        end = decode((await stage.ended(generation_id)).end)

        assert (end.error.code, end.error.retryable) == ("upstream_refused", False)
        assert stage.backend.prefixes == [""]
        await nothing_left(stage)


async def test_after_so_many_failures_it_is_given_up(url):
    async with Stage(url, fails("a"), attempts_max=3) as stage:
        worker = await stage.start()
        generation_id = await stage.ask()
        end = decode((await stage.ended(generation_id)).end)

        assert (end.status, end.error.code) == ("failed", "attempts_exhausted")
        assert "upstream_error" in end.error.message
        assert (await stage.said(generation_id)).count("start") == 3
        assert stage.backend.prefixes == ["", "a", "aa"]
        assert worker.counters["attempts_failed"] == 3
        await nothing_left(stage)


async def test_an_answer_without_its_end_is_a_failure(url):
    async with Stage(url, breaks_off("Hel"), says("lo")) as stage:
        await stage.start()
        generation_id = await stage.ask()
        meta = await stage.ended(generation_id)

        assert await stage.said(generation_id) == ["start", "Hel", "start", "lo", "end"]
        assert meta.failures == 1


async def test_retry_after_is_waited_for_without_a_slot(url):
    async with Stage(url, fails("Hel", retry_after_s=15.0), says("lo")) as stage:
        worker = await stage.start()
        generation_id = await stage.ask()

        async def paused():
            return await stage.redis.zrange(keys.LATER, 0, -1, withscores=True)

        ((entry, at_ms),) = await until(paused, DEADLINE_S, "an entry in later")
        await until(lambda: not worker.runs, DEADLINE_S, "a free slot")
        assert 5_000 < at_ms - await stage.store.now_ms() <= 15_000
        assert (await queue_depths(stage.redis))["interactive"] == 1
        assert (await stage.store.meta(generation_id)).lease_ms == 0

        await stage.redis.zadd(keys.LATER, {entry: 1})
        await stage.ended(generation_id)

        assert await stage.text(generation_id) == "Hello"
        await nothing_left(stage)


async def test_an_answer_may_only_be_so_long(url):
    async def endless(prefix):
        while True:
            yield [Token("x" * 100)]

    async with Stage(url, endless, answer_bytes_max=5_000) as stage:
        await stage.start()
        generation_id = await stage.ask()
        end = decode((await stage.ended(generation_id)).end)

        assert (end.status, end.error.code, end.error.retryable) == (
            "failed",
            "answer_too_large",
            False,
        )
        assert len(await stage.text(generation_id)) <= 5_100
        await until(lambda: stage.backend.open == 0, DEADLINE_S, "the backend is closed")


async def test_an_accident_of_one_answer_is_not_the_others(url, caplog):
    async with Stage(url, says("a")) as stage:
        worker = await stage.start()
        broken = await stage.ask(request=b"no JSON")

        generation_id = await stage.ask()
        await stage.ended(generation_id)

        await until(lambda: broken not in worker.runs, DEADLINE_S, "the broken run is over")
        assert "run failed" in caplog.text
        assert not (await stage.store.meta(broken)).is_ended


# Cancel


async def test_a_cancel_stops_the_backend_at_once(url):
    """Long before a renewal would tell."""
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), lease_s=LONG_S) as stage:
        await stage.start()
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")
        await heard(stage)

        await cancel(stage.store, generation_id)

        await until(lambda: stage.backend.open == 0, 3.0, "the backend is closed")
        assert await stage.said(generation_id) == ["start", "a", "end"]
        assert (await stage.store.meta(generation_id)).status == "cancelled"
        await nothing_left(stage)


async def heard(stage):
    async def is_heard():
        ((_, count),) = await stage.redis.pubsub_numsub(keys.CANCEL)
        return count

    await until(is_heard, DEADLINE_S, "the worker listens")


async def test_a_cancel_that_was_not_heard_is_learnt_from_the_renewal(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), lease_s=0.3) as stage:
        await stage.start()
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")

        await stage.store.close(generation_id, CANCELLED)

        await until(lambda: stage.backend.open == 0, 3.0, "the backend is closed")
        await nothing_left(stage)


async def test_a_cancel_is_learnt_from_the_next_append(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a", "b", "c"), lease_s=LONG_S) as stage:
        await stage.start()
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")
        await stage.store.close(generation_id, CANCELLED)

        gate.set()

        await until(lambda: stage.backend.open == 0, 3.0, "the backend is closed")
        assert await stage.said(generation_id) == ["start", "a", "end"]
        await nothing_left(stage)


async def test_what_is_cancelled_in_the_queue_runs_nowhere(url):
    async with Stage(url, says("a")) as stage:
        cancelled = await stage.ask()
        await cancel(stage.store, cancelled)
        await stage.start()

        other = await stage.ask()
        await stage.ended(other)

        await nothing_left(stage)
        assert stage.backend.seeds == [other]
        assert await stage.said(cancelled) == ["end"]


# Slots


async def test_no_more_run_than_there_are_slots(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a", "b"), worker_slots=3) as stage:
        ids = [await stage.ask() for _ in range(12)]
        worker = await stage.start()
        await until(lambda: stage.backend.open == 3, DEADLINE_S, "all slots are taken")
        ids += [await stage.ask() for _ in range(8)]

        async def waiting() -> bool:
            return (await queue_depths(stage.redis))["interactive"] == 17

        await until(waiting, DEADLINE_S, "those that run wait no more")
        gate.set()

        for generation_id in ids:
            await stage.ended(generation_id)

        assert stage.backend.open_most == 3
        await until(lambda: not worker.runs, DEADLINE_S, "free slots")
        await nothing_left(stage)


async def test_what_dead_workers_left_is_taken_slot_by_slot(url):
    """Claimed while its lease still lives, it must not start all at once later."""
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), worker_slots=2, lease_s=0.4) as stage:
        ids = [await stage.ask() for _ in range(15)]
        dead = Queue(stage.redis, "dead")
        await dead.ensure_groups()
        entries = [delivery.entry_id for delivery in await dead.read("interactive", 99)]
        lives_until_ms = await stage.store.now_ms() + 2_000  # pushed on by an append, say
        for generation_id in ids:
            assert isinstance(await stage.store.begin(generation_id, "dead", "dead"), Begun)
            await stage.redis.hset(keys.meta(generation_id), "lease", str(lives_until_ms))
        await stage.redis.xclaim(
            keys.lane("interactive"), keys.GROUP, "dead", 0, entries, idle=10**6
        )
        worker = await stage.start()
        await until(lambda: len(worker._held) > 2, DEADLINE_S, "claimed, and too early")
        await until(lambda: stage.backend.open >= 2, DEADLINE_S, "all slots are taken")
        await worker._sweep_once()
        gate.set()
        for generation_id in ids:
            await stage.ended(generation_id)

        assert stage.backend.open_most == 2
        await nothing_left(stage)


async def test_an_entry_read_late_stays_the_way_to_its_generation(url):
    """Its reader stood still, somebody else began meanwhile, and then was lost: it must go on."""
    async with Stage(url, says("a"), lease_s=0.4) as stage:
        generation_id = await stage.ask()
        assert isinstance(await stage.store.begin(generation_id, "other", "other"), Begun)
        worker = await stage.start()
        await stage.ended(generation_id)

        assert worker.counters["takeovers"] == 1
        await until(lambda: not worker.runs, DEADLINE_S, "free slots")
        await nothing_left(stage)


async def test_batch_lines_leave_room_for_people(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), worker_slots=4) as stage:
        batch = [await stage.ask(priority="batch") for _ in range(8)]
        worker = await stage.start()
        await until(lambda: stage.backend.open == 3, DEADLINE_S, "three quarters are taken")

        person = await stage.ask()
        await stage.has_said(person, "a")

        assert sum(run.ticket.priority == "batch" for run in worker.runs.values()) == 3
        gate.set()
        for generation_id in batch:
            await stage.ended(generation_id)


async def test_one_batch_line_runs_however_many_people_wait(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), worker_slots=3) as stage:
        people = [await stage.ask() for _ in range(9)]
        batch = await stage.ask(priority="batch")
        await stage.start()
        await stage.has_said(batch, "a")
        gate.set()
        for generation_id in [*people, batch]:
            await stage.ended(generation_id)


# Backpressure


async def test_while_redis_is_slower_the_backend_is_not_read_on(url, monkeypatch):
    monkeypatch.setattr(run_module, "UNSENT_BYTES_MAX", 1_000)
    pieces = [f"{n:>99} " for n in range(500)]
    async with Stage(url, says(*pieces), lease_s=LONG_S) as stage:
        worker = await stage.start()
        gate, blocked = asyncio.Event(), asyncio.Event()
        append_many = worker.store.append_many

        async def slow(batches):
            blocked.set()
            await gate.wait()
            return await append_many(batches)

        monkeypatch.setattr(worker.store, "append_many", slow)
        generation_id = await stage.ask()
        await blocked.wait()
        for _ in range(2_000):
            await asyncio.sleep(0)
        assert stage.backend.lists <= 15

        gate.set()
        await stage.ended(generation_id)

        assert await stage.text(generation_id) == "".join(pieces)


# Drain


async def test_a_drain_hands_over_at_once_what_can_be_continued(url):
    gate = asyncio.Event()
    plays = says_and_waits(gate, "Hel"), says("lo")
    async with Stage(url, *plays, lease_s=LONG_S, drain_s=LONG_S) as stage:
        first = await stage.start("first")
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "Hel")

        first.drain()
        await stage.drained("first")
        assert stage.backend.open == 0
        assert (await stage.store.meta(generation_id)).lease_ms == 0
        assert [presence.worker for presence in await workers_seen(stage.redis)] == []

        await stage.start("second")
        meta = await stage.ended(generation_id)

        assert await stage.said(generation_id) == ["start", "Hel", "start", "lo", "end"]
        assert stage.backend.prefixes == ["", "Hel"]
        assert meta.failures == 0, "a drain is nobody's failure"
        await nothing_left(stage)


async def test_a_drain_waits_for_what_cannot_be_continued(url):
    gate = asyncio.Event()
    plays = says_and_waits(gate, "a", "b")
    async with Stage(url, plays, on_takeover="restart", drain_s=LONG_S) as stage:
        worker = await stage.start()
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")
        worker.drain()
        late = await stage.ask()
        await until(lambda: worker.is_draining and len(worker.runs) == 1, DEADLINE_S, "it goes on")

        gate.set()
        await stage.drained()

        assert await stage.text(generation_id) == "ab"
        assert (await stage.store.meta(generation_id)).status == "completed"
        assert (await stage.store.meta(late)).status == "queued", "nothing more is taken"


async def test_a_drain_waits_only_so_long(url):
    gate = asyncio.Event()
    plays = says_and_waits(gate, "void"), says("good")
    async with Stage(url, *plays, on_takeover="restart", drain_s=0.2) as stage:
        first = await stage.start("first")
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "void")

        first.drain()
        await stage.drained("first")
        await stage.start("second")
        meta = await stage.ended(generation_id)

        assert await stage.text(generation_id) == "good"
        assert meta.failures == 0


# Taking over


async def test_another_worker_goes_on_where_a_killed_one_stopped(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "Hel"), says("lo"), lease_s=0.3) as stage:
        await stage.start("first")
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "Hel")
        second = await stage.start("second")

        await stage.kill("first")
        meta = await stage.ended(generation_id)

        assert await stage.said(generation_id) == ["start", "Hel", "start", "lo", "end"]
        assert stage.backend.prefixes == ["", "Hel"]
        assert meta.failures == 1
        assert second.counters["takeovers"] == 1
        await nothing_left(stage)


async def test_what_a_living_worker_has_stays_with_it(url):
    """Its entry is renewed with its lease: the other does not even look."""
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), lease_s=0.3) as stage:
        await stage.start("one")
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")
        await stage.start("two")
        until_ms = await stage.store.now_ms() + 3 * stage.store.lease_ms

        async def three_leases_later():
            return await stage.store.now_ms() > until_ms

        await until(three_leases_later, DEADLINE_S)

        (entry,) = await stage.redis.xpending_range(
            keys.lane("interactive"), keys.GROUP, "-", "+", 9
        )
        assert (entry["consumer"], entry["times_delivered"]) == (b"one", 1)
        gate.set()
        await stage.ended(generation_id)


async def test_a_prompt_that_kills_its_workers_is_given_up(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), lease_s=0.6, attempts_max=2) as stage:
        generation_id = await stage.ask()
        for n in (1, 2):
            await stage.start(f"victim {n}")
            await until(lambda n=n: len(stage.backend.seeds) == n, DEADLINE_S, "it begins")
            await stage.kill(f"victim {n}")
        await stage.start("third")
        end = decode((await stage.ended(generation_id)).end)

        assert end.error.code == "attempts_exhausted"
        assert len(stage.backend.seeds) == 2
        await nothing_left(stage)


async def test_a_model_that_cannot_go_on_ends_with_its_worker(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), lease_s=0.2, on_takeover="fail") as stage:
        await stage.start("first")
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")
        await stage.kill("first")
        await stage.start("second")
        end = decode((await stage.ended(generation_id)).end)

        assert end.error.code == "worker_lost"
        assert len(stage.backend.seeds) == 1


async def test_a_worker_that_was_taken_over_stops_its_backend(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a", "b"), lease_s=0.3) as stage:
        worker = await stage.start()
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")

        async def taken_over():
            await stage.redis.hset(keys.meta(generation_id), "lease", "1")
            begun = await stage.store.begin(generation_id, "thief", "thief")
            return begun if isinstance(begun, Begun) else None

        await until(taken_over, DEADLINE_S, "the thief begins")

        await until(lambda: stage.backend.open == 0, 3.0, "the backend is closed")
        await until(lambda: worker.counters["leases_lost"] == 1, DEADLINE_S, "it is counted")
        assert await stage.said(generation_id) == ["start", "a", "start"]
        assert await stage.redis.hget(keys.meta(generation_id), "token") == b"thief"


async def nobody_is_blocked(stage) -> bool:
    return (await stage.redis.info("clients"))["blocked_clients"] == 0


async def test_nothing_is_taken_over_in_the_first_lease_after_an_absence(url):
    """Also when it is the sweep that finds Redis back first."""
    async with Stage(url, says("a"), lease_s=LONG_S) as stage:
        worker = await stage.start()
        generation_id = await stage.ask(model="m")
        await stage.ended(generation_id)
        await stage.kill()
        # The server may still hold a blocked read of its, and would give the entry to nobody.
        await until(partial(nobody_is_blocked, stage), DEADLINE_S, "its blocked read is gone")
        other = await stage.ask()
        dead = Queue(stage.redis, "dead")
        (delivery,) = await dead.read("interactive", 9)
        assert isinstance(await stage.store.begin(other, "dead", "dead"), Begun)
        await stage.redis.hset(keys.meta(other), "lease", "1")
        await stage.redis.xclaim(
            keys.lane("interactive"), keys.GROUP, "dead", 0, [delivery.entry_id], idle=10**8
        )

        worker = stage.worker("back")
        worker._is_away = worker._was_connected = True
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as worker._tasks:
            await worker._sweep_once()

        assert not worker._held, "not even claimed: another worker might take it over at once"
        assert (await stage.store.meta(other)).failures == 0
        assert stage.backend.seeds == [generation_id]


# What Redis loses


@pytest.mark.parametrize("loss", ["generation", "everything"])
async def test_what_redis_forgets_in_mid_answer_is_brought_back(url, loss):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "Hel", "lo"), lease_s=0.3) as stage:
        await stage.start()
        generation_id = await stage.ask(session="chat", metadata=b'{"a":1}')
        await stage.has_said(generation_id, "Hel")
        log = await stage.store.page(generation_id, START, 99)
        meta = await stage.store.meta(generation_id)

        if loss == "generation":
            await stage.redis.delete(keys.meta(generation_id), keys.log(generation_id))
        else:
            await stage.redis.flushall()
        await stage.has_said(generation_id, "Hel")
        assert await stage.store.page(generation_id, START, 99) == log
        gate.set()
        again = await stage.ended(generation_id)

        assert await stage.said(generation_id) == ["start", "Hel", "lo", "end"]
        for name in ("owner", "session", "metadata", "created_at_ms", "request", "attempt"):
            assert getattr(again, name) == getattr(meta, name), name


async def test_after_redis_came_back_empty_the_worker_goes_on(url):
    async with Stage(url, says("a")) as stage:
        await stage.start()
        await stage.ended(await stage.ask())
        await stage.redis.flushall()

        await stage.ended(await stage.ask())

        await nothing_left(stage)


async def test_a_lost_tail_is_written_again(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a", "b"), lease_s=LONG_S) as stage:
        await stage.start()
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")
        log = await stage.store.page(generation_id, START, 99)
        await stage.redis.delete(keys.log(generation_id))

        gate.set()
        await stage.ended(generation_id)

        assert (await stage.store.page(generation_id, START, 99))[:2] == log
        assert await stage.text(generation_id) == "ab"


# Entries


async def test_an_entry_without_a_generation_is_dropped_after_a_while(url, monkeypatch):
    monkeypatch.setattr(run_module, "ABSENT_S", 0.05)
    async with Stage(url, says("a")) as stage:
        entry = encode_entry("gen_nobody0000", "interactive", "m")
        await stage.redis.xadd(keys.lane("interactive"), {"e": entry})
        await stage.start()

        await nothing_left(stage)

        assert stage.backend.seeds == []


async def test_a_worker_that_is_quicker_than_meta_looks_again(url):
    async with Stage(url, says("a")) as stage:
        worker = await stage.start()
        entry = encode_entry("gen_early00000", "interactive", "m")
        await stage.redis.xadd(keys.lane("interactive"), {"e": entry})
        await until(lambda: worker.runs, DEADLINE_S, "the entry is taken")

        fields = {"owner": "o", "model": "m", "request": b'{"messages":[]}'}
        await stage.store.create("gen_early00000", fields, may_be_lost=False)

        await stage.ended("gen_early00000")


async def test_what_is_delivered_twice_runs_once(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a", "b"), worker_slots=9) as stage:
        await stage.start("one")
        await stage.start("two")
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")
        for _ in range(4):
            await put_back(stage.store, generation_id, "interactive", "m")

        async def looked_at():
            return await stage.redis.xlen(keys.lane("resume")) == 0

        await until(looked_at, DEADLINE_S, "the duplicates are gone")
        gate.set()
        await stage.ended(generation_id)

        assert len(stage.backend.seeds) == 1
        assert await stage.said(generation_id) == ["start", "a", "b", "end"]
        await nothing_left(stage)


async def test_an_entry_that_comes_back_before_its_run_has_left_is_kept(url, monkeypatch):
    """It was to be tried again, and the run that gave it back has not been answered yet."""
    async with Stage(url, fails("Hel"), says("lo")) as stage:
        worker = await stage.start()
        gate, is_leaving = asyncio.Event(), asyncio.Event()
        acknowledge = worker.queue.acknowledge

        async def slow(delivery):
            if delivery.lane == "interactive":
                is_leaving.set()
                await gate.wait()
            await acknowledge(delivery)

        monkeypatch.setattr(worker.queue, "acknowledge", slow)
        generation_id = await stage.ask()
        await is_leaving.wait()

        async def is_read_again():
            pending = await stage.redis.xpending(keys.lane("resume"), keys.GROUP)
            read = (await stage.redis.xinfo_groups(keys.lane("resume")))[0]["entries-read"]
            return read or pending["pending"]

        await until(is_read_again, DEADLINE_S, "the entry is back and has been read")
        gate.set()
        await stage.ended(generation_id)

        assert await stage.text(generation_id) == "Hello"
        await nothing_left(stage)


async def test_models_of_other_workers_are_left_for_them(url):
    mine, theirs = ScriptedBackend(says("mine")), ScriptedBackend(says("theirs"))
    async with Stage(url, says("a"), lease_s=0.3) as stage:
        await stage.start("one", models={"m": Model(name="m")}, backends={"m": mine})
        generation_id = await stage.ask(model="n")
        await until(lambda: stage.redis.xpending(keys.lane("interactive"), keys.GROUP), DEADLINE_S)
        await stage.start("two", models={"n": Model(name="n")}, backends={"n": theirs})
        await stage.ended(generation_id)

        assert await stage.text(generation_id) == "theirs"
        assert mine.seeds == []


async def test_a_worker_says_what_it_does(url):
    gate = asyncio.Event()
    async with Stage(url, says_and_waits(gate, "a"), worker_slots=7, lease_s=0.3) as stage:
        await stage.start("one")
        generation_id = await stage.ask()
        await stage.has_said(generation_id, "a")

        async def seen():
            return [p for p in await workers_seen(stage.redis) if p.running]

        (presence,) = await until(seen, DEADLINE_S, "its presence")
        assert (presence.worker, presence.slots, presence.draining) == ("one", 7, False)
        assert await stage.redis.zrange(keys.RUNNING, 0, -1) == [generation_id.encode()]


def test_a_blocked_read_ends_before_its_connection_would_time_out():
    assert worker_module.BLOCK_MS / 1000 < REDIS_ANSWER_S
