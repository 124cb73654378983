"""Batches in this process: slices, and faults between two steps, which no kill hits reliably.

Real Redis, a real worker with a backend of the test's, files in a directory. With real processes
and real kills: tests/faults/test_batches.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from jobs.batch import batch_run as course_module
from jobs.batch import done_lines as done_lines_module
from jobs.batch import gathering as gathering_module
from jobs.batch import result as result_module
from jobs.batch import source as source_module
from jobs.batch import validation as validation_module
from jobs.batch.source import BatchSource, build_batches
from jobs.owners import Owners
from shared.batches.lease import BatchLease
from shared.batches.record import Batch, Batches, NewBatch, parts_prefix
from shared.config.limits import OwnerLimits
from shared.errors import BackendError, FilesUnavailable, Unavailable
from shared.files.objects import ObjectStore
from shared.log.events import Token
from shared.log.ids import new_batch_id
from shared.queue.allowance import used_today
from shared.redis import keys
from shared.usage.ledger import Ledger
from shared.usage.settlement import Settlement
from tests.support.batch import by_id, encoded, line
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness
from workers.backends.contract import Finish

OWNER = "alice"
NATIVE = "/v1/generations"
A_DAY = timedelta(days=1)


async def says(prefix):
    yield [Token("Hello")]
    yield [Token(" you"), Finish("stop")]


class Desk:
    """A jobs process's batches, and the answers of one owner."""

    def __init__(self, harness: WorkerHarness) -> None:
        self.harness = harness
        self.stopping = asyncio.Event()
        self.batches = Batches(harness.redis, harness.settings)
        self.source = self.another()

    def another(self, owner: str = OWNER) -> BatchSource:
        """Return the source of another jobs process, which knows this owner."""
        owners = Owners({owner})
        harness = self.harness
        return build_batches(
            harness.redis, harness.store, harness.settings, owners, models=harness.models
        )

    @property
    def files(self):
        return self.source.parts.files

    async def submit(self, lines: int = 20, *, pad: int = 0, window_s: float = 600.0) -> str:
        bodies = ({"prompt": f"say {n}" + "x" * pad} for n in range(lines))
        content = encoded(line(f"c{n}", body, NATIVE) for n, body in enumerate(bodies))
        return await self.submit_bytes(content, window_s=window_s)

    async def submit_bytes(self, content: bytes, *, window_s: float = 600.0) -> str:
        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(content), 100_000):
                yield content[at : at + 100_000]

        file = await self.files.create(OWNER, "in.jsonl", "batch", pieces(), bytes_max=2**30)
        new = NewBatch(new_batch_id(), OWNER, NATIVE, file.id, "10m", window_s)
        await self.batches.create(new)
        return new.batch_id

    async def slice(self, batch_id: str, source: BatchSource | None = None) -> None:
        await (source or self.source).run({"stopping": self.stopping}, batch_id)

    async def run(self, batch_id: str) -> Batch:
        """Slice after slice, to the end."""
        async with asyncio.timeout(DEADLINE_S * 6):
            while not (batch := await self.batches.get(batch_id, OWNER)).is_final:
                await self.slice(batch_id)
                await self.harness.redis.hset(keys.meta(batch_id), "lease", "0")
        return batch

    async def rows(self, file_id: str) -> dict[str, dict]:
        if not file_id:
            return {}
        record = await self.files.get(file_id, OWNER)
        content = b"".join([piece async for piece in self.files.read(record)])
        return by_id([json.loads(raw) for raw in content.splitlines()])

    async def starts(self, batch_id: str) -> int:
        entries = await self.harness.redis.xrange(keys.log(batch_id))
        return sum(b'"type":"start"' in fields[b"e"] for _, fields in entries)


@pytest.fixture
async def desk(redis_server, real_redis, tmp_path):
    async with WorkerHarness(
        redis_server.url, says, data_dir=str(tmp_path), lease_s=2.0
    ) as harness:
        await harness.start()
        yield Desk(harness)


@contextlib.contextmanager
def failing_once(owner, name, *, before: bool = True):
    """The next call of a method does not get through, or its answer does not come back."""
    whole = getattr(owner, name)
    calls = []

    async def broken(self, *args, **kwargs):
        calls.append(args)
        if len(calls) > 1:
            return await whole(self, *args, **kwargs)
        if not before:
            await whole(self, *args, **kwargs)
        raise Unavailable("as told")

    setattr(owner, name, broken)
    try:
        yield
    finally:
        setattr(owner, name, whole)
    assert calls, f"{name} was never called"


def names(count: int) -> set[str]:
    return {f"c{n}" for n in range(count)}


# Slices


async def test_a_batch_continues_over_many_slices(desk, monkeypatch):
    monkeypatch.setattr(source_module, "BATCH_SLICE_S", 0.02)
    batch_id = await desk.submit(100)

    batch = await desk.run(batch_id)

    assert (batch.status, batch.completed) == ("completed", 100)
    assert (await desk.rows(batch.output_file_id)).keys() == names(100)
    assert await desk.starts(batch_id) > 2
    assert len(desk.harness.backend.seeds) == 100, "each line was asked once"


async def test_a_second_slice_beside_the_first_leaves_at_once(desk):
    batch_id = await desk.submit(100)
    other = desk.another()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(desk.slice(batch_id))
        await until(lambda: desk.harness.backend.seeds, DEADLINE_S, "a line that runs")

        await desk.slice(batch_id, other)

        assert not first.done()
    assert await desk.starts(batch_id) == 1


async def has_some(desk, batch_id):
    return (await desk.batches.get(batch_id, OWNER)).completed


async def test_a_stopped_slice_keeps_the_finished_lines(desk, monkeypatch):
    monkeypatch.setattr(gathering_module, "RESULTS_MAX", 40)
    batch_id = await desk.submit(300)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(desk.slice(batch_id))
        await until(lambda: has_some(desk, batch_id), DEADLINE_S, "lines that are done")
        desk.stopping.set()
    stopped = await desk.batches.get(batch_id, OWNER)
    desk.stopping.clear()

    assert stopped.status == "in_progress" and 0 < stopped.completed < 300
    batch = await desk.run(batch_id)
    assert (await desk.rows(batch.output_file_id)).keys() == names(300)
    assert len(desk.harness.backend.seeds) == 300


async def test_only_a_batch_without_a_lease_is_due(desk):
    batch_id = await desk.submit(1)
    await desk.harness.redis.zadd(keys.BATCHES_ACTIVE, {"batch_never_created": 1})
    assert [job.args for job in await desk.source.due()] == [(batch_id,)]

    lease = await BatchLease.begin(desk.source.parts.log_store, batch_id, "somebody")
    assert await desk.source.due() == []

    await lease.release()
    assert [job.args for job in await desk.source.due()] == [(batch_id,)]

    await desk.run(batch_id)
    assert await desk.source.due() == []
    assert await desk.harness.redis.zcard(keys.BATCHES_ACTIVE) == 0


# Of an owner that no key names any more


async def test_a_held_batch_starts_no_line_until_its_owner_is_known_again(desk):
    batch_id = await desk.submit(20)
    strict = desk.another("somebody else")
    for _ in range(2):
        await desk.slice(batch_id, strict)

    held = await desk.batches.get(batch_id, OWNER)
    assert (held.status, held.line, held.completed) == ("in_progress", 0, 0)
    assert desk.harness.backend.seeds == []
    assert await strict.due() == [], "it is left alone for a while"
    assert [job.args for job in await desk.source.due()] == [(batch_id,)]

    batch = await desk.run(batch_id)
    assert (batch.status, batch.completed) == ("completed", 20)
    assert len(desk.harness.backend.seeds) == 20


async def test_lines_in_flight_of_a_held_batch_end_and_are_counted(desk, monkeypatch):
    """Some lines were accepted by a holder that knew the owner; others only taken."""
    monkeypatch.setattr(source_module, "BATCH_SLICE_S", 0.0)
    batch_id = await desk.submit(10)
    lease = await BatchLease.begin(desk.source.parts.log_store, batch_id, "dies")
    await validation_module.validate(desk.source.parts, lease, await lease.load())
    record = await desk.files.get((await lease.load()).input_file_id, OWNER)
    course = course_module.BatchRun(desk.source.parts, lease, await lease.load(), record)
    await course.resume()
    course._window = 6
    assert await course._take() == 6
    asked = desk.source.parts.acceptor.accept_lines

    async def accept_four(lines, *, is_repeat):
        await asked(lines[:4], is_repeat=is_repeat)

    monkeypatch.setattr(desk.source.parts.acceptor, "accept_lines", accept_four)
    await course._ask(0.0)
    monkeypatch.setattr(desk.source.parts.acceptor, "accept_lines", asked)
    await lease.release()
    await course.close()
    monkeypatch.setattr(source_module, "BATCH_SLICE_S", 45.0)

    strict = desk.another("somebody else")
    await desk.slice(batch_id, strict)

    held = await desk.batches.get(batch_id, OWNER)
    assert (held.status, held.line, held.completed) == ("in_progress", 6, 4)
    assert len(desk.harness.backend.seeds) == 4
    batch = await desk.run(batch_id)
    assert (batch.completed, batch.failed) == (10, 0)
    assert len(desk.harness.backend.seeds) == 10, "each line was asked once"


async def test_a_held_batch_without_open_lines_is_completed(desk, monkeypatch):
    """Its last line was committed, and the holder died before it said so."""
    batch_id = await desk.submit(3)
    moved = BatchLease.move

    async def move(self, before, after, **more):
        if after == "finalizing":
            raise Unavailable("as told")
        return await moved(self, before, after, **more)

    with monkeypatch.context() as patch:
        patch.setattr(BatchLease, "move", move)
        await desk.slice(batch_id)
    left = await desk.batches.get(batch_id, OWNER)
    assert (left.status, left.completed) == ("in_progress", 3)
    await desk.harness.redis.hset(keys.meta(batch_id), "lease", "0")

    await desk.slice(batch_id, desk.another("somebody else"))
    assert (await desk.batches.get(batch_id, OWNER)).status == "completed"


async def test_a_held_batch_can_be_cancelled(desk):
    batch_id = await desk.submit(5)
    strict = desk.another("somebody else")
    await desk.slice(batch_id, strict)
    assert await strict.due() == []
    await desk.batches.cancel(batch_id)

    assert [job.args for job in await strict.due()] == [(batch_id,)]
    await desk.slice(batch_id, strict)
    assert (await desk.batches.get(batch_id, OWNER)).status == "cancelled"


async def test_a_held_batch_expires_when_its_window_is_over(desk):
    batch_id = await desk.submit(5)
    strict = desk.another("somebody else")
    await desk.slice(batch_id, strict)
    await desk.harness.redis.hset(keys.batch(batch_id), "expires", "1")

    assert [job.args for job in await strict.due()] == [(batch_id,)]
    await desk.slice(batch_id, strict)
    batch = await desk.batches.get(batch_id, OWNER)
    assert (batch.status, batch.failed) == ("expired", 5)
    assert desk.harness.backend.seeds == []


async def test_held_batches_take_no_place_from_others(desk, monkeypatch):
    monkeypatch.setattr(source_module, "ACTIVE_MAX", 1)
    first, second = await desk.submit(1), await desk.submit(1)
    await desk.harness.redis.zadd(keys.BATCHES_ACTIVE, {first: 1, second: 2})
    strict = desk.another("somebody else")
    assert [job.args for job in await strict.due()] == [(first,)]
    await desk.slice(first, strict)

    assert [job.args for job in await strict.due()] == [(second,)]


# Between two steps


@pytest.mark.parametrize("name", ["take", "commit", "move"])
@pytest.mark.parametrize("before", [True, False], ids=["not sent", "not answered"])
async def test_the_next_slice_repeats_a_failed_step(desk, name, before):
    batch_id = await desk.submit(30)
    with failing_once(BatchLease, name, before=before):
        batch = await desk.run(batch_id)

    assert (batch.status, batch.completed, batch.failed) == ("completed", 30, 0)
    assert (await desk.rows(batch.output_file_id)).keys() == names(30)
    assert len(desk.harness.backend.seeds) == 30


async def test_a_crash_between_the_files_and_the_last_status(desk):
    """The files are there already, and their parts are gone."""
    batch_id = await desk.submit(5)
    moved, calls = BatchLease.move, []

    async def move(self, before, after, **more):
        if after == "completed" and not calls:
            calls.append(after)
            raise Unavailable("as told")
        return await moved(self, before, after, **more)

    BatchLease.move = move
    try:
        batch = await desk.run(batch_id)
    finally:
        BatchLease.move = moved

    assert calls
    assert batch.status == "completed"
    assert (await desk.rows(batch.output_file_id)).keys() == names(5)


async def test_a_completed_batch_leaves_only_its_files(desk):
    batch_id = await desk.submit(5)
    batch = await desk.run(batch_id)

    left = [found.name async for found in desk.files.list_objects(parts_prefix(batch_id))]
    found = {key.decode() async for key in desk.harness.redis.scan_iter(f"tr:{{{batch_id}}}:*")}

    assert left == []
    assert found == {keys.batch(batch_id), keys.meta(batch_id), keys.log(batch_id)}
    assert batch.output_file_id and not batch.error_file_id


async def test_an_uncommitted_part_of_the_results_is_ignored(desk):
    batch_id = await desk.submit(10)
    with failing_once(BatchLease, "commit"):
        await desk.slice(batch_id)
    parts = [found.name async for found in desk.files.list_objects(parts_prefix(batch_id))]
    assert len(parts) == 1

    batch = await desk.run(batch_id)

    assert (await desk.rows(batch.output_file_id)).keys() == names(10)
    assert [f async for f in desk.files.list_objects(parts_prefix(batch_id))] == []


@pytest.mark.parametrize("after_calls", [1, 2])
async def test_a_batch_has_exact_results_after_redis_went_back(desk, monkeypatch, after_calls):
    """Redis loses the last writes of the batch while the holder's connections stay open."""
    monkeypatch.setattr(gathering_module, "RESULTS_MAX", 40)
    batch_id = await desk.submit(600)
    kept: dict[bytes, bytes] = {}
    commits = []
    commit = BatchLease.commit

    async def committing(self, said):
        await commit(self, said)
        commits.append(said.name)
        redis = desk.harness.redis
        if len(commits) == after_calls:
            names = [key async for key in redis.scan_iter(f"tr:{{{batch_id}}}:*")]
            kept.update({name: await redis.dump(name) for name in names})
        elif len(commits) == after_calls + 1:
            pipeline = redis.pipeline()
            for name in [key async for key in redis.scan_iter(f"tr:{{{batch_id}}}:*")]:
                pipeline.delete(name)
            for name, raw in kept.items():
                pipeline.restore(name, 0, raw)
            await pipeline.execute()

    monkeypatch.setattr(BatchLease, "commit", committing)
    batch = await desk.run(batch_id)

    assert len(commits) > after_calls + 1, "it went back"
    assert (batch.status, batch.completed, batch.failed) == ("completed", 600, 0)
    assert (await desk.rows(batch.output_file_id)).keys() == names(600)
    assert len(set(desk.harness.backend.seeds)) == 600, "nothing was asked under another id"


# Cancelled at odd moments


async def test_a_batch_can_be_cancelled_during_validation(desk, monkeypatch):
    monkeypatch.setattr(validation_module, "LOOK_S", 0.0)
    batch_id = await desk.submit(2_000, pad=1_000)
    read, pieces = type(desk.files).read, []

    async def reading(self, record, start=0):
        async for piece in read(self, record, start):
            pieces.append(piece)
            if len(pieces) == 2:
                await desk.batches.cancel(batch_id)
            yield piece

    monkeypatch.setattr(type(desk.files), "read", reading)
    batch = await desk.run(batch_id)

    assert (batch.status, batch.total) == ("cancelled", 0)
    assert len(pieces) < 6, "it was not read on"
    assert desk.harness.backend.seeds == []


async def test_a_batch_can_be_cancelled_while_its_files_are_written(desk, monkeypatch):
    batch_id = await desk.submit(5)
    create = type(desk.files).create

    async def creating(self, *args, **more):
        record = await create(self, *args, **more)
        if more.get("file_id"):
            await desk.batches.cancel(batch_id)
        return record

    monkeypatch.setattr(type(desk.files), "create", creating)
    batch = await desk.run(batch_id)

    assert (batch.status, batch.completed) == ("cancelled", 5)
    assert (await desk.rows(batch.output_file_id)).keys() == names(5)


# What goes away


async def test_an_input_that_is_deleted_in_the_middle_ends_the_batch(desk, monkeypatch):
    monkeypatch.setattr(gathering_module, "RESULTS_MAX", 40)
    batch_id = await desk.submit(300)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(desk.slice(batch_id))
        await until(lambda: has_some(desk, batch_id), DEADLINE_S, "lines that are done")
        desk.stopping.set()
    desk.stopping.clear()
    before = await desk.batches.get(batch_id, OWNER)
    assert before.status == "in_progress"
    await desk.files.delete(before.input_file_id, OWNER)

    batch = await desk.run(batch_id)

    assert batch.status == "failed"
    assert json.loads(batch.errors)[0]["code"] == "input_file_gone"
    assert len(await desk.rows(batch.output_file_id)) == batch.completed > 0


async def test_results_missing_from_the_store_are_reported(desk, monkeypatch):
    async def finish(*args, **more):
        await desk.files.delete_prefix(parts_prefix(batch_id))
        return await finished(*args, **more)

    finished = source_module.finish
    monkeypatch.setattr(source_module, "finish", finish)
    batch_id = await desk.submit(5)

    batch = await desk.run(batch_id)

    assert batch.status == "failed"
    assert json.loads(batch.errors)[0]["code"] == "results_lost"


async def test_a_line_whose_generation_is_gone_is_started_again(desk):
    """A node sealed the generation, or a client deleted it, before its line was committed."""
    batch_id = await desk.submit(3)
    await desk.harness.kill()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(desk.slice(batch_id))
        pending = keys.waiting("batch")

        async def waiting():
            return len(await desk.harness.redis.zrange(pending, 0, -1)) == 3

        await until(waiting, DEADLINE_S, "lines that wait")
        (gone, *_) = await desk.harness.redis.zrange(pending, 0, -1)
        await desk.harness.store.delete(gone.decode())
        await desk.harness.start()
    batch = await desk.run(batch_id)

    rows = await desk.rows(batch.output_file_id)
    assert (batch.status, rows.keys()) == ("completed", names(3))
    assert gone.decode() not in {row["response"]["request_id"] for row in rows.values()}


async def test_an_answer_longer_than_a_page_has_its_full_text(desk, monkeypatch):
    monkeypatch.setattr(course_module, "LOG_ENTRIES", 2)
    batch = await desk.run(await desk.submit(2))

    rows = await desk.rows(batch.output_file_id)
    assert {row["response"]["body"]["text"] for row in rows.values()} == {"Hello you"}


async def test_a_batch_retries_a_line_of_a_model_that_workers_do_not_retry(
    redis_server, real_redis, tmp_path, monkeypatch
):
    monkeypatch.setattr(result_module, "PAUSE_S", 0.01)

    async def fails(prefix):
        raise BackendError("upstream_error", "it broke")
        yield

    async with WorkerHarness(
        redis_server.url, fails, fails, says, on_takeover="fail", data_dir=str(tmp_path)
    ) as harness:
        await harness.start()
        desk = Desk(harness)
        batch = await desk.run(await desk.submit(1))

        assert (batch.completed, batch.failed) == (1, 0)
        assert len(harness.backend.seeds) == 3
        assert len(set(harness.backend.seeds)) == 3, "each try is a generation of its own"


# Usage and audit


async def test_lines_stay_until_their_usage_and_their_audit_record_are_settled(
    redis_server, real_redis, tmp_path, monkeypatch
):
    monkeypatch.setattr(done_lines_module, "LINE_KEPT_S", 0.001)
    models = tmp_path / "models.toml"
    models.write_text('[models.m]\nbackend = "demo"\n[[models.m.stages]]\nstage = "audit"\n')
    async with WorkerHarness(
        redis_server.url, says, data_dir=str(tmp_path), models=str(models)
    ) as harness:
        await harness.start()
        desk, redis = Desk(harness), harness.redis
        settlement = Settlement(redis, harness.store, harness.settings)
        batch = await desk.run(await desk.submit(3))
        rows = await desk.rows(batch.output_file_id)
        metas = [keys.meta(row["response"]["request_id"]) for row in rows.values()]

        async def unsettled():
            return await redis.zcard(keys.unsettled())

        async def left():
            return sum([await redis.exists(name) for name in metas])

        async def away(*args, **kwargs):
            raise FilesUnavailable("no disk")

        async def have_ended():
            return await unsettled() == 3

        await until(have_ended, DEADLINE_S, "the ends of all lines")
        with monkeypatch.context() as broken:
            broken.setattr(ObjectStore, "put", away)
            await settlement.look(keys.QUEUE)
            await desk.source.due()
        assert await left() == 3, "their records are still to be written"

        await settlement.look(keys.QUEUE)
        assert await unsettled() == 0
        await desk.source.due()

        async def are_gone():
            return not await left()

        await until(are_gone, DEADLINE_S, "the expiry of the lines")
        records = list((tmp_path / "files" / "audit").rglob("*.json"))
        assert [json.loads(path.read_bytes())["text"] for path in records] == ["Hello you"] * 3
        today = datetime.now(UTC).date()
        (days,) = await Ledger(redis, harness.settings).rows([OWNER], today - A_DAY, today)
        assert sum(row.figures.prompts for row in days) == 3


# Size


async def test_a_batch_with_more_parts_than_one_step_reads_in_its_time_is_completed(
    desk, monkeypatch
):
    """A bucket answers each read slowly, and a slow batch has a part for every few lines."""
    parts = desk.source.parts
    batch_id = await desk.submit(1)
    lease = await BatchLease.begin(parts.log_store, batch_id, "dies")
    await lease.move("validating", "in_progress", fields={"total": "200"})
    await lease.move("in_progress", "finalizing")
    part_names = [f"{parts_prefix(batch_id)}t-{n}.out" for n in range(200)]
    for n, name in enumerate(part_names):
        await desk.files.put_object(name, encoded([{"custom_id": f"c{n}"}]))
    await desk.harness.redis.rpush(keys.batch_parts(batch_id), *part_names)
    await lease.release()
    read = type(desk.files).read_object

    async def slowly(self, name, start=0):
        await asyncio.sleep(0.2)  # a bucket that answers slowly
        async for piece in read(self, name, start):
            yield piece

    monkeypatch.setattr(type(desk.files), "read_object", slowly)
    monkeypatch.setattr(source_module, "STEP_TIMEOUT_S", 2.0)
    await desk.slice(batch_id)

    batch = await desk.batches.get(batch_id, OWNER)
    assert batch.status == "completed"
    assert list(await desk.rows(batch.output_file_id)) == [f"c{n}" for n in range(200)]


async def test_a_step_that_hangs_ends_its_slice(desk, monkeypatch, caplog):
    batch_id = await desk.submit(1)

    async def hangs(self):
        await asyncio.Event().wait()

    monkeypatch.setattr(source_module, "STEP_TIMEOUT_S", 0.05)
    monkeypatch.setattr(course_module.BatchRun, "resume", hangs)
    await desk.slice(batch_id)

    assert "batch left" in caplog.messages
    monkeypatch.undo()
    assert (await desk.run(batch_id)).status == "completed"


async def test_a_large_input_is_never_whole_in_memory(desk):
    batch_id = await desk.submit(1_000, pad=20_000)
    lease = await BatchLease.begin(desk.source.parts.log_store, batch_id, "me")
    batch = await lease.load()
    tracemalloc.start()
    try:
        await validation_module.validate(desk.source.parts, lease, batch)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (await lease.load()).total == 1_000
    assert peak < 8_000_000, "the file has 20 MB"


async def test_few_lines_are_in_flight_however_many_there_are(desk):
    batch_id = await desk.submit(300)
    redis, most = desk.harness.redis, 0
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(desk.run(batch_id))
        while not task.done():
            # Lines leave this index a moment after their end, so only those without an end count.
            pipeline = redis.pipeline(transaction=False)
            for name in await redis.zrange(keys.waiting("batch"), 0, -1):
                pipeline.hget(keys.meta(name.decode()), "status")
            statuses = await pipeline.execute()
            most = max(most, sum(status in (b"queued", b"running") for status in statuses))
            await asyncio.sleep(0)
    assert 0 < most <= 150, "twice what one worker runs"
    assert task.result().completed == 300


async def test_lines_count_in_the_day_of_their_owner_and_a_batch_waits_when_it_is_used_up(desk):
    owners, redis = desk.source.parts.owners, desk.harness.redis
    owners._redis = redis
    owners.limits_of = lambda owner: OwnerLimits(tokens_per_day=10)
    first, second = await desk.submit(5), await desk.submit(5)

    batch = await desk.run(first)
    assert batch.completed == 5

    await until(lambda: all_settled(redis), DEADLINE_S, "the settlement of every line")
    assert await used_today(redis, OWNER) >= 10
    await desk.slice(second)
    await redis.hset(keys.meta(second), "lease", "0")
    await desk.slice(second)
    assert (await desk.batches.get(second, OWNER)).completed == 0, "it waits"

    await redis.hincrby(keys.owner_limits(OWNER), "day", -1)
    assert (await desk.run(second)).completed == 5


async def all_settled(redis):
    return await redis.zcard(keys.owner_active(OWNER)) == 0
