"""The jobs role on arq: its schedule, its work after faults, and the private names that it uses."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import fakeredis
import pytest
from arq import cron
from arq.connections import ArqRedis
from arq.cron import CronJob
from arq.jobs import DeserializationError, deserialize_job_raw
from arq.worker import Worker, func

from jobs import arq_worker, role
from jobs.arq_worker import QUEUE, JobsWorker
from jobs.role import janitor_cron, sweep, work
from jobs.source import Job
from shared.config.redis_url import read_redis_url
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.later.lag import read_lag
from shared.log.store import Store
from shared.queue.janitor import Janitor
from shared.redis import keys
from shared.redis.jobs_wake import wake_jobs
from tests.support.generation import ID, create
from tests.support.wait import until

DEADLINE_S = 20.0  # a pass every two seconds, on a busy machine


@pytest.fixture
async def settings(redis_server, real_redis):
    return Settings(redis_url=redis_server.url, queue_wait_s=1.0)


class Passes:
    """A janitor that only counts."""

    def __init__(self, error=None):
        self.count = 0
        self.error = error
        self.redis = fakeredis.FakeAsyncRedis()

    async def sweep(self):
        self.count += 1
        if self.error is not None:
            raise self.error
        return 7


@pytest.fixture
def short_polls(monkeypatch):
    monkeypatch.setattr(arq_worker, "POLL_S", 0.05)
    monkeypatch.setattr(role, "SWEEP_EVERY_S", 1)
    for module in (arq_worker, role):
        monkeypatch.setattr(module, "AWAY_PAUSE_S", 0.05)


def jobs_url(settings):
    url = read_redis_url(settings.redis_url, "TAILRACE_REDIS_URL")
    return url._replace(database=url.database + 1)


class Often(CronJob):
    """A cron job ten times a second; arq itself plans at most one run a second."""

    def calculate_next(self, prev_run):
        self.next_run = prev_run + timedelta(seconds=0.1)


def build_worker(settings, janitor, functions=(), *, is_often=True):
    job = janitor_cron()
    crons = [Often(**vars(job)) if is_often else job]
    worker = arq_worker.build_worker(jobs_url(settings), functions, crons)
    worker.ctx["janitor"] = janitor
    return worker


@asynccontextmanager
async def running(worker, redis, sources=()):
    """The worker, until the block ends."""
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work(worker, redis, sources, stopping, 5.0))
        try:
            yield
        finally:
            stopping.set()


async def other_database(redis_server):
    """A client of the database of arq's keys, which is the database after ours."""
    return ArqRedis.from_url(redis_server.url.replace("db=0", "db=1"))


# What of arq is not public


def test_arq_still_has_the_private_names_that_we_use():
    assert inspect.iscoroutinefunction(Worker._poll_iteration)
    assert list(inspect.signature(Worker._poll_iteration).parameters) == ["self"]
    assert "self._poll_iteration()" in inspect.getsource(Worker.main)
    assert "self._pool" in inspect.getsource(Worker.__init__)
    assert list(inspect.signature(Worker.start_jobs).parameters) == ["self", "job_ids"]
    assert "self.start_jobs(" in inspect.getsource(Worker._poll_iteration)
    for name in ("allow_pick_jobs", "tasks", "health_check_key", "in_progress_timeout_s"):
        assert f"self.{name}" in inspect.getsource(Worker.__init__), name


def test_the_jobs_worker_replaces_arqs_poll_loop():
    assert JobsWorker.main is not Worker.main
    assert "_poll_iteration" in inspect.getsource(JobsWorker.main)


async def test_the_mark_of_a_running_job_does_not_stay_for_the_longest_limit(settings):
    worker = build_worker(settings, Passes(), [func(sweep, name="long", timeout=3_600.0)])
    assert worker.in_progress_timeout_s == arq_worker.IN_PROGRESS_S == 310


async def test_a_job_that_outlives_its_mark_is_not_started_again_here(
    settings, real_redis, short_polls, monkeypatch
):
    monkeypatch.setattr(arq_worker, "IN_PROGRESS_S", 0.1)
    may_end, starts = asyncio.Event(), []

    async def takes_long(ctx):
        starts.append(ctx["job_try"])
        await may_end.wait()

    passes = Passes()
    worker = build_worker(settings, passes, [func(takes_long, name="long", max_tries=9)])
    async with running(worker, real_redis):
        await worker.enqueue(Job("long", (), "long:1"))
        await until(lambda: starts, DEADLINE_S, "the job")
        before = passes.count
        await until(lambda: passes.count > before + 3, DEADLINE_S, "later polls")
        may_end.set()

    assert starts == [1]


# The schedule


async def test_the_janitor_runs_on_schedule(settings, real_redis, short_polls):
    passes = Passes()
    async with running(build_worker(settings, passes, is_often=False), real_redis):
        await until(lambda: passes.count >= 2, DEADLINE_S, "two passes")


async def test_the_jobs_role_alone_ends_prompts_that_waited_too_long(
    settings, real_redis, short_polls
):
    store = Store(real_redis, settings)
    await create(store)
    long_ago_ms = await store.now_ms() - 60_000
    await real_redis.hset(keys.meta(ID), "waiting", str(long_ago_ms))
    await real_redis.zadd(keys.waiting("interactive"), {ID: long_ago_ms})

    worker = build_worker(settings, Janitor(real_redis, store, settings))
    async with running(worker, real_redis):

        async def has_ended():
            return (await store.meta(ID)).status == "failed"

        await until(has_ended, DEADLINE_S, "the queue timeout")


async def test_the_jobs_role_survives_the_loss_of_all_its_connections(
    settings, real_redis, short_polls
):
    passes = Passes()
    async with running(build_worker(settings, passes), real_redis):
        await until(lambda: passes.count >= 1, DEADLINE_S, "a pass")
        before = passes.count

        await real_redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        # One pass may have been on its way already.
        await until(lambda: passes.count > before + 1, DEADLINE_S, "passes afterwards")


async def test_the_jobs_role_survives_a_redis_that_comes_back_empty(
    settings, real_redis, short_polls
):
    passes = Passes()
    async with running(build_worker(settings, passes), real_redis):
        await until(lambda: passes.count >= 1, DEADLINE_S, "a pass")
        before = passes.count

        await real_redis.flushall()

        # One pass may have been on its way already.
        await until(lambda: passes.count > before + 1, DEADLINE_S, "passes afterwards")


async def test_the_jobs_role_continues_after_the_clock_was_set_back(
    settings, real_redis, short_polls
):
    """Else it would wait until the clock is again where it was."""
    passes = Passes()
    worker = build_worker(settings, passes)
    async with running(worker, real_redis):
        await until(lambda: passes.count >= 1, DEADLINE_S, "a pass")
        before, (job,) = passes.count, worker.cron_jobs

        job.next_run = datetime.now(UTC) + timedelta(hours=1)  # as it stands after such a jump

        # One pass may have been on its way already.
        await until(lambda: passes.count > before + 1, DEADLINE_S, "passes afterwards")


async def test_two_schedulers_at_one_tick_make_one_pass(settings, real_redis, short_polls):
    """arq's own cron, which several processes run: each tick is one job."""
    ticks = []

    async def tick(ctx):
        ticks.append(ctx["job_id"])

    def scheduler():
        job = cron(tick, second=set(range(60)), keep_result=0, max_tries=1)
        return arq_worker.build_worker(jobs_url(settings), [], [job])

    async with running(scheduler(), real_redis), running(scheduler(), real_redis):
        await until(lambda: len(ticks) >= 3, DEADLINE_S, "three ticks")

    assert len(set(ticks)) == len(ticks)


async def test_a_cancel_does_not_interrupt_a_poll_of_the_queue(settings, real_redis, monkeypatch):
    """arq looks in transactions: one that is cancelled half-way keeps its connection."""
    worker = build_worker(settings, Passes())
    looking, may_end, ends = asyncio.Event(), asyncio.Event(), []

    async def look():
        looking.set()
        try:
            await may_end.wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        ends.append("done")

    async def let_the_poll_end():
        await until(lambda: not worker.allow_pick_jobs, DEADLINE_S, "the order to stop")
        may_end.set()

    monkeypatch.setattr(worker, "_poll_iteration", look)
    async with asyncio.TaskGroup() as tasks, running(worker, real_redis):
        await asyncio.wait_for(looking.wait(), DEADLINE_S)
        tasks.create_task(let_the_poll_end())

    assert ends == ["done"]


async def test_a_failed_pass_is_repeated(settings, real_redis, short_polls, caplog):
    passes = Passes(error=ValueError("an accident"))
    async with running(build_worker(settings, passes), real_redis):
        await until(lambda: passes.count >= 2, DEADLINE_S, "another pass")


async def test_without_redis_a_pass_is_skipped():
    assert await sweep({"janitor": Passes()}) == 7
    assert await sweep({"janitor": Passes(error=Unavailable("away"))}) == 0


# What is due


class Errands:
    """A source whose one errand is due until it is done."""

    def __init__(self):
        self.is_due = False
        self.questions = 0  # how often the role has asked what is due
        self.done = []
        self.functions = [func(self.run, name="run")]

    async def run(self, ctx, number):
        self.done.append(number)
        self.is_due = False

    async def due(self):
        self.questions += 1
        return [Job("run", (7,), "errand:7")] if self.is_due else []


async def test_due_work_runs_when_the_role_is_woken(settings, real_redis, monkeypatch):
    # The next poll does not come within the deadline. On a busy machine an answer of Redis may come
    # too late: then the role asks again soon, and the test must not fail.
    monkeypatch.setattr(role, "DUE_POLL_S", 10 * DEADLINE_S)
    monkeypatch.setattr(role, "AWAY_PAUSE_S", 0.05)
    errands = Errands()
    worker = build_worker(settings, Passes(), errands.functions)
    async with running(worker, real_redis, [errands]):
        await until(lambda: errands.questions, DEADLINE_S, "the first question of the role")
        errands.is_due = True

        await wake_jobs(real_redis)

        await until(lambda: errands.done, DEADLINE_S, "the errand")
    assert errands.done == [7]


async def test_due_work_is_found_without_a_wake(settings, real_redis, short_polls):
    errands = Errands()
    errands.is_due = True
    worker = build_worker(settings, Passes(), errands.functions)
    async with running(worker, real_redis, [errands]):
        await until(lambda: errands.done, DEADLINE_S, "the errand")


# What is in Redis


async def test_payloads_are_json_in_a_database_of_their_own(
    settings, real_redis, redis_server, short_polls
):
    """Whoever can write to Redis must not be able to run code here, as with pickles."""
    worker = build_worker(settings, Passes())
    other = await other_database(redis_server)
    await worker.pool.enqueue_job("sweep", 5, text="ü")

    (name,) = [key async for key in other.scan_iter("arq:job:*")]
    payload = await other.get(name)

    assert payload.startswith(b"{") and "ü".encode() in payload
    assert await other.zcard(QUEUE) == 1
    assert await real_redis.dbsize() == 0, "nothing of arq's among our keys"
    await other.aclose()
    await worker.close()


async def test_a_malformed_id_is_removed_from_the_queue(
    settings, real_redis, redis_server, short_polls
):
    """arq reads ids as text, and would end with the first that is none."""
    passes = Passes()
    other = await other_database(redis_server)
    await other.zadd(QUEUE, {b"\xff\x00": 1, b"\xc3(": 2})
    async with running(build_worker(settings, passes), real_redis):
        await until(lambda: passes.count >= 1, DEADLINE_S, "a pass")

    assert all(name.startswith(b"cron:") for name in await other.zrange(QUEUE, 0, -1))
    await other.aclose()


async def test_the_result_of_a_failed_job_is_its_error_text(settings, real_redis):
    assert (
        arq_worker.encode({"r": ValueError("an accident")})
        == b'{"r":"ValueError(\'an accident\')"}'
    )


async def test_a_pickled_payload_is_never_loaded(settings):
    raw = pickle.dumps({"t": 1, "f": "sweep", "a": (), "k": {}, "et": 1})
    assert deserialize_job_raw(raw)[0] == "sweep", "as arq would read it by default"
    worker = build_worker(settings, Passes())

    with pytest.raises(DeserializationError):
        deserialize_job_raw(raw, deserializer=worker.job_deserializer)


async def test_a_jobs_role_that_works_gives_signs_of_life(settings, real_redis, short_polls):
    janitor = Passes()
    janitor.redis = real_redis
    async with running(build_worker(settings, janitor), real_redis):

        async def beats():
            return set(await real_redis.hkeys(keys.JOBS_BEATS)) == {b"polled", b"swept"}

        await until(beats, DEADLINE_S, "both signs")
    assert not (await read_lag(real_redis)).is_late
