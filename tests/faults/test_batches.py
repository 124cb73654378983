"""Batches while processes are killed: the output has each line once, and no line is asked twice.

The model is an upstream in the test's process, which records its calls. A careful reader reads the
events of the batch during the whole test, and the history checker checks what it read.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from shared.redis import keys
from tests.support.batch import by_id, chat_line, encoded, ended, rows, submit, text_of
from tests.support.deliveries import Reading, Record, read_log
from tests.support.history import check_record
from tests.support.processes import Deployment, Role
from tests.support.reader import CarefulReader
from tests.support.sdk import sdk
from tests.support.upstream import Upstream, expected_text, script_of
from tests.support.wait import until

LEASE_S = 0.8
SLOTS = 8
LINES_PER_WORKER = 6  # three quarters of the slots
WINDOW = 24  # two workers, twice
TOKENS = 2  # of an answer: its pieces cost more than the line
LINES = 96  # four windows: batches begin, go on and end with lines in flight
MORE_LINES = 2 * LINES  # where the batch has to outlast a handover also on a slow machine
TRANSPORTS = ("sse", "ndjson", "longpoll")
MODELS = """
[models.up]
backend = "openai"
base_url = "{url}"
on_takeover = "restart"
"""


@pytest.fixture(scope="module")
async def shared(upstream: Upstream) -> AsyncIterator[Deployment]:
    settings = {"worker_slots": str(SLOTS), "queue_wait_s": "1"}
    models = MODELS.format(url=upstream.base_url)
    async with Deployment(
        api=2, workers=2, jobs=2, lease_s=LEASE_S, models=models, settings=settings
    ) as deployment:
        yield deployment


@pytest.fixture
async def deployment(shared: Deployment, upstream: Upstream) -> AsyncIterator[Deployment]:
    await shared.heal()
    upstream.calls.clear()
    yield shared
    await shared.heal()


class Run:
    """One batch of `lines` lines, what it must say, and who watches it."""

    def __init__(
        self, deployment: Deployment, client: openai.AsyncOpenAI, batch_id: str, lines: int
    ):
        self.deployment = deployment
        self.client = client
        self.id = batch_id
        self.lines = lines
        self.began = time.monotonic()
        self.readings: list[Reading] = []
        self.tasks: list[asyncio.Task[Reading]] = []

    async def look(self) -> Any:
        return await self.client.batches.retrieve(self.id)

    async def done(self) -> int:
        counts = (await self.look()).request_counts
        return counts.completed + counts.failed if counts.total else -1

    @property
    def said(self) -> int:
        """The lines that the reader has been told of as done."""
        named = {
            delivery.fields["value"]["custom_id"]
            for reading in self.readings
            for delivery in reading.deliveries
            if delivery.type == "data"
        }
        return len(named)

    async def until_done(self, lines: int, deadline_s: float = 20.0) -> None:
        """Wait until so many lines count.

        The reader is told of each line, so the node is asked only when there are enough.
        """
        what = f"{lines} lines read\n{self.deployment.report()}"
        await until(lambda: not self.readings or self.said >= lines, deadline_s, what)

        async def enough() -> bool:
            try:
                return await self.done() >= lines
            except openai.APIError as exc:  # told when it does not pass
                raise RuntimeError(f"{exc!r} {exc.__cause__!r}") from exc

        await until(enough, deadline_s, f"{lines} lines done\n{self.deployment.report()}")

    async def holder(self) -> Role:
        """The jobs process that runs it, or ran it to its end."""

        async def look() -> Role | None:
            async with contextlib.aclosing(self.deployment.redis()) as redis:
                names = ["worker", "token", "end"]
                name, token, end = await redis.hmget(keys.meta(self.id), names)
            pid = int(name.decode().rpartition("-")[2]) if name and (token or end) else 0
            return next((role for role in self.deployment.jobs if role.pid == pid), None)

        role = await until(look, 20, "a holder")
        assert role is not None
        return role

    async def flying(self) -> int:
        async with contextlib.aclosing(self.deployment.redis()) as redis:
            return int(await redis.hlen(keys.batch_flight(self.id)))

    def watch(self) -> None:
        reading = Reading("batch")
        self.readings.append(reading)
        reader = CarefulReader(
            reading, self.deployment.urls, transports=TRANSPORTS, hop_after=60, path="/v1/batches"
        )
        self.tasks.append(asyncio.create_task(reader.run(self.id, deadline_s=90)))

    async def audit(self) -> None:
        """The log and its readers, by the rules that hold for every log."""
        for task in self.tasks:
            await asyncio.wait_for(task, 30)
        async with contextlib.aclosing(self.deployment.redis()) as redis:
            entries = await redis.xrange(keys.log(self.id))
        log = read_log([(entry_id, fields[b"e"]) for entry_id, fields in entries])
        record = Record(self.id, self.began, None, self.readings, log)

        assert check_record(record, bound_s=90) == []
        seqs = [int(entry.event_id.partition("-")[2]) for entry in log]
        assert seqs == list(range(1, len(log) + 1)), "an event is missing"
        said = [e.fields["value"]["custom_id"] for e in log if e.type == "data"]
        assert len(said) == len(set(said)), "a line is said to be done twice"

    async def check_completed(self) -> Any:
        """It completed: each line once, each answer exact, the counts right."""
        for task in self.tasks:  # without requests, until the reader has the end
            await asyncio.wait_for(asyncio.shield(task), 60)
        batch = await ended(self.client, self.id)
        assert batch.status == "completed", (batch, self.deployment.report())
        found = by_id(await rows(self.client, batch.output_file_id))
        assert found.keys() == {f"c{number}" for number in range(self.lines)}
        for number in range(self.lines):
            prompt = f"{self.began_prompt} {number}"
            script = script_of({"messages": [], "upstream": {"tokens": TOKENS}})
            assert text_of(found[f"c{number}"]) == expected_text(prompt, script)
        counts = batch.request_counts
        assert (counts.total, counts.completed, counts.failed) == (self.lines, self.lines, 0)
        assert batch.error_file_id is None
        await self.audit()
        return batch

    began_prompt = ""


@contextlib.asynccontextmanager
async def running(
    deployment: Deployment,
    lines: int = LINES,
    *,
    prompt: str = "tell me of",
    window: str = "24h",
    node: int = 0,
    is_watched: bool = True,
    **script: Any,
) -> AsyncIterator[Run]:
    """Submit a batch; each answer takes about 80 ms unless the script says otherwise."""
    told = {"tokens": TOKENS, "delay_s": 0.04, **script}
    content = encoded(chat_line(n, f"{prompt} {n}", upstream=told) for n in range(lines))
    async with sdk(deployment.urls[node] + "/v1", retries=2) as client:
        batch = await submit(client, content, window=window)
        run = Run(deployment, client, batch.id, lines)
        run.began_prompt = prompt
        if is_watched:
            run.watch()
        try:
            yield run
        finally:
            for task in run.tasks:
                task.cancel()
            await asyncio.gather(*run.tasks, return_exceptions=True)


def asked(upstream: Upstream) -> collections.Counter[str]:
    """How often each prompt was asked of the upstream."""
    return collections.Counter(call.body["messages"][-1]["content"] for call in upstream.calls)


async def until_no_generation_is_left(deployment: Deployment) -> None:
    """Wait until no generation waits or runs.

    A jobs role that was killed may have queued lines whose generations it had not yet created.
    Workers drop such entries after 10 s, so they do not count.
    """
    async with contextlib.aclosing(deployment.redis()) as redis:

        async def is_idle() -> bool:
            tags = deployment.partitions.tags
            names = [keys.running(tag) for tag in tags]
            names += [keys.waiting(priority, tag) for tag in tags for priority in keys.PRIORITIES]
            queued = [each.decode() for name in names for each in await redis.zrange(name, 0, -1)]
            return not any([await redis.exists(keys.meta(each)) for each in queued])

        await until(is_idle, 10, f"no generation waits or runs\n{deployment.report()}")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.85])
async def test_a_killed_jobs_role_is_replaced_and_no_line_is_repeated(
    deployment: Deployment, upstream: Upstream, figure, share
):
    async with running(deployment) as run:
        await run.until_done(round(LINES * share))
        (await run.holder()).kill()
        killed_at = time.monotonic()
        before = await run.done()
        if before < LINES:
            await run.until_done(before + 1)
            figure(
                "jobs killed to the next line that counts", f"{time.monotonic() - killed_at:.2f} s"
            )
            assert time.monotonic() - killed_at < 5

        await run.check_completed()

    assert asked(upstream).total() == LINES, "no line is asked twice"


async def test_a_batch_continues_after_a_time_without_any_jobs_role(
    deployment: Deployment, upstream: Upstream
):
    """Lines in flight end meanwhile, and the jobs role that starts next takes in their results."""
    async with running(deployment) as run:
        await run.until_done(30)
        for role in deployment.jobs:
            role.kill()
        calls = len(upstream.calls)
        await until_no_generation_is_left(deployment)
        assert len(upstream.calls) <= calls + WINDOW
        back_at = time.monotonic()
        deployment.jobs[0].start()
        await deployment.ready([deployment.jobs[0]])
        before = await run.done()
        await run.until_done(before + 1)
        assert time.monotonic() - back_at < 8, "5 s, and the start of a process"

        await run.check_completed()

    assert asked(upstream).total() == LINES


async def test_a_frozen_jobs_role_is_fenced_when_it_wakes(
    deployment: Deployment, upstream: Upstream
):
    async with running(deployment, lines=MORE_LINES, delay_s=0.08) as run:
        await run.until_done(40)
        zombie = await run.holder()
        zombie.freeze()
        before = await run.done()
        await run.until_done(before + 20)
        other = await run.holder()
        zombie.thaw()

        await run.check_completed()

    assert other is not zombie
    assert asked(upstream).total() == MORE_LINES
    assert zombie.is_running
    await until(lambda: "batch left" in zombie.stderr(), 10, "the zombie is told, and stops")


async def test_a_batch_continues_after_arq_has_lost_its_database(
    deployment: Deployment, upstream: Upstream
):
    """What is to be done stands in our own keys."""
    async with running(deployment) as run:
        await run.until_done(30)
        async with contextlib.aclosing(deployment.jobs_redis()) as redis:
            assert await redis.dbsize()
            await redis.flushdb()
        (await run.holder()).kill()

        await run.check_completed()

    assert asked(upstream).total() == LINES


async def test_a_drained_jobs_role_hands_over_at_once(
    deployment: Deployment, upstream: Upstream, figure
):
    async with running(deployment, lines=MORE_LINES) as run:
        await run.until_done(40)
        role = await run.holder()
        role.terminate()
        told_at = time.monotonic()
        assert await role.ended(10) == 0
        before = await run.done()
        await run.until_done(before + 1)
        figure("jobs drained to the next line that counts", f"{time.monotonic() - told_at:.2f} s")

        await run.check_completed()

    assert asked(upstream).total() == MORE_LINES


async def test_only_the_lines_of_a_killed_worker_are_repeated(
    deployment: Deployment, upstream: Upstream
):
    async with running(deployment) as run:
        await run.until_done(30)
        deployment.workers[0].kill()
        await run.until_done(60)
        deployment.workers[0].start()

        await run.check_completed()

    assert LINES <= asked(upstream).total() <= LINES + LINES_PER_WORKER


async def test_a_killed_node_does_not_disturb_a_batch(deployment: Deployment, upstream: Upstream):
    async with running(deployment, node=1) as run:
        await run.until_done(30)
        deployment.api[0].kill()
        await run.until_done(60)
        deployment.api[0].start()

        await run.check_completed()

    assert asked(upstream).total() == LINES


@pytest.mark.parametrize("done", [10, 60])
async def test_redis_is_killed_and_comes_back_with_its_file(
    deployment: Deployment, upstream: Upstream, done
):
    """AOF everysec: what the last second said may be lost, and is done again, but never twice."""
    async with running(deployment) as run:
        await run.until_done(done)
        deployment.server.kill()
        deployment.server.start()

        await run.check_completed()

    again = asked(upstream)
    assert max(again.values()) <= 3
    assert again.total() <= LINES + 3 * WINDOW


async def test_a_batch_survives_the_death_of_every_process_in_turn(
    deployment: Deployment, upstream: Upstream, figure
):
    random.seed(11)
    kills, lines = 0, 140
    # 0.4 s for an answer: at most 30 lines a second, so the batch outlives its processes.
    async with running(deployment, lines, delay_s=0.2) as run:
        for kill in ("jobs", "redis", "worker", "api"):
            with contextlib.suppress(openai.APIError):
                await run.until_done(min(await run.done() + random.randint(5, 15), lines), 30)
                if await run.done() == lines:  # the machine was slower than the batch
                    break
            kills += 1
            if kill == "jobs":
                (await run.holder()).kill()
            elif kill == "worker":
                random.choice(deployment.workers).kill()
            elif kill == "api":
                deployment.api[1].kill()
            else:
                deployment.server.kill()
            await deployment.heal()

        await run.check_completed()

    again = asked(upstream).total() - lines
    figure(f"upstream calls beyond one a line, after {kills} kills", str(again))
    assert kills >= 3 and again <= kills * WINDOW


# Cancelling


async def test_a_cancel_keeps_the_finished_lines_and_starts_no_more(
    deployment: Deployment, upstream: Upstream, figure
):
    async with running(deployment, delay_s=0.1) as run:
        await run.until_done(30)
        said = await run.client.batches.cancel(run.id)
        cancelled_at = time.monotonic()
        batch = await ended(run.client, run.id, 10)
        figure("cancel to cancelled", f"{time.monotonic() - cancelled_at:.2f} s")
        await until_no_generation_is_left(deployment)
        calls = len(upstream.calls)

        assert said.status == "cancelling"
        assert batch.status == "cancelled" and batch.cancelled_at
        found = by_id(await rows(run.client, batch.output_file_id))
        assert 30 <= len(found) == batch.request_counts.completed < LINES
        await run.audit()
        assert len(upstream.calls) == calls
        again = await run.client.batches.cancel(run.id)
        assert again.status == "cancelled"


async def test_a_cancelled_batch_without_a_jobs_role_ends_when_a_jobs_role_starts(
    deployment: Deployment, upstream: Upstream
):
    for role in deployment.jobs:
        role.kill()
    async with running(deployment) as run:
        assert (await run.look()).status == "validating"
        assert (await run.client.batches.cancel(run.id)).status == "cancelling"
        deployment.jobs[0].start()
        batch = await ended(run.client, run.id, 12)
        assert batch.status == "cancelled"
        assert batch.output_file_id is None
        await run.audit()
    assert not upstream.calls


async def test_a_cancel_outlives_the_jobs_role_that_saw_it(
    deployment: Deployment, upstream: Upstream
):
    async with running(deployment, delay_s=0.4) as run:
        await run.until_done(12)
        holder = await run.holder()
        holder.freeze()
        await run.client.batches.cancel(run.id)
        batch = await ended(run.client, run.id, 10)
        holder.thaw()
        assert batch.status == "cancelled"
        found = by_id(await rows(run.client, batch.output_file_id))
        assert len(found) == batch.request_counts.completed
        await run.audit()
    assert max(asked(upstream).values()) == 1


# Time


async def test_a_batch_past_its_window_expires_with_every_line_accounted_for(
    deployment: Deployment, upstream: Upstream
):
    # Twelve lines at once, 0.5 s each: some end in time, a window is in flight, the rest waits.
    async with running(deployment, 96, window="2s", tokens=5, delay_s=0.1) as run:
        batch = await ended(run.client, run.id, 15)
        await until_no_generation_is_left(deployment)
        calls = len(upstream.calls)
        done = by_id(await rows(run.client, batch.output_file_id))
        late = by_id(await rows(run.client, batch.error_file_id))

        assert batch.status == "expired" and batch.expired_at
        assert batch.expired_at - batch.created_at <= 5
        assert done and not done.keys() & late.keys()
        assert done.keys() | late.keys() == {f"c{number}" for number in range(96)}
        assert {row["error"]["code"] for row in late.values()} == {"batch_expired"}
        counts = batch.request_counts
        assert (counts.completed, counts.failed) == (len(done), len(late))
        await run.audit()
        assert len(upstream.calls) == calls


async def test_lines_wait_for_a_worker_longer_than_a_prompt_would(
    deployment: Deployment, upstream: Upstream
):
    """TAILRACE_QUEUE_WAIT_S is one second here."""
    for worker in deployment.workers:
        worker.kill()
    async with running(deployment, 8) as run:
        await until(run.flying, 10, "lines in flight")
        async with sdk(deployment.urls[1] + "/v1") as client:
            with pytest.raises(openai.APIStatusError) as said:
                await client.chat.completions.create(
                    model="up", messages=[{"role": "user", "content": "is anybody there?"}]
                )
        assert said.value.body["code"] == "queue_timeout"  # type: ignore[index]
        assert await run.done() == 0
        await deployment.heal()

        await run.check_completed()


# Upstream trouble


async def test_a_busy_upstream_is_retried_after_its_retry_after(
    deployment: Deployment, upstream: Upstream
):
    """429 with Retry-After on the first request of each line.

    Few lines: each wave of refusals keeps all others away from the upstream for a second.
    """
    lines = 4
    async with running(
        deployment, lines, prompt="busy", fault="status", status=429, retry_after="1"
    ) as run:
        batch = await ended(run.client, run.id)
        assert batch.request_counts.completed == lines
        assert time.monotonic() - run.began > 0.9, "Retry-After was kept"
        await run.audit()
    calls = collections.defaultdict(list)
    for call in upstream.calls:
        calls[call.body["messages"][-1]["content"]].append(call)
    assert {len(found) for found in calls.values()} == {2}


async def test_lines_that_fail_for_good_are_dead_letters_and_can_be_redriven(
    deployment: Deployment, upstream: Upstream
):
    """500 on the first three requests of each: the worker's attempts are the line's."""
    async with running(
        deployment, 6, prompt="broken", fault="status", status=500, fault_requests=3
    ) as run:
        batch = await ended(run.client, run.id)
        assert batch.status == "completed"
        assert (batch.request_counts.completed, batch.request_counts.failed) == (0, 6)
        failed = by_id(await rows(run.client, batch.error_file_id))
        assert {row["response"]["status_code"] for row in failed.values()} == {502}
        assert {row["error"]["code"] for row in failed.values()} == {"attempts_exhausted"}
        letters = await run.client.get(f"/batches/{run.id}/dead_letters?limit=4", cast_to=object)
        assert [one["code"] for one in letters["data"]] == ["attempts_exhausted"] * 4
        assert letters["has_more"]

        raw = await run.client.post(f"/batches/{run.id}/redrive", cast_to=object)
        assert raw["metadata"]["redrive_of"] == run.id
        again = await ended(run.client, raw["id"])
        assert (again.request_counts.completed, again.request_counts.failed) == (6, 0)
        found = by_id(await rows(run.client, again.output_file_id))
        assert found.keys() == {f"c{number}" for number in range(6)}
    assert set(asked(upstream).values()) == {4}


# Beside people


async def test_a_prompt_does_not_wait_behind_a_thousand_lines(
    deployment: Deployment, upstream: Upstream, figure
):
    async with running(deployment, 1_000, is_watched=False, tokens=4, delay_s=0.25) as run:
        await run.until_done(5)
        took = []
        async with sdk(deployment.urls[1] + "/v1") as client:
            for number in range(7):
                begun = time.monotonic()
                stream = await client.chat.completions.create(
                    model="up", stream=True, extra_body={"upstream": {"tokens": 2}},
                    messages=[{"role": "user", "content": f"quick {number}"}],
                )  # fmt: skip
                async for chunk in stream:
                    if chunk.choices and chunk.choices[0].delta.content:
                        took.append(time.monotonic() - begun)
                        break
                await stream.close()
        figure("first token beside a full batch", f"{1000 * sorted(took)[3]:.0f} ms median")
        assert sorted(took)[3] < 0.5, "a line takes a second; none was waited for"
        assert await run.done() < 1_000
        await run.client.batches.cancel(run.id)
        await ended(run.client, run.id, 10)


async def test_batch_lines_keep_a_slot_under_endless_prompts(
    deployment: Deployment, upstream: Upstream
):
    """More people than slots, who ask again and again: lines go through all the same."""
    script = {"tokens": 4, "delay_s": 0.12}

    async def ask(client: openai.AsyncOpenAI, name: int) -> None:
        while True:
            with contextlib.suppress(openai.InternalServerError):  # who waits too long asks again
                await client.chat.completions.create(
                    model="up", extra_body={"upstream": script},
                    messages=[{"role": "user", "content": f"person {name}"}],
                )  # fmt: skip

    async with sdk(deployment.urls[0] + "/v1") as client:
        people = [asyncio.create_task(ask(client, name)) for name in range(2 * 2 * SLOTS)]
        await until(lambda: len(upstream.calls) > 2 * SLOTS, 20, "a rush")
        async with running(deployment, 15) as run:
            await run.check_completed()
            assert not any(task.done() for task in people)
        for task in people:
            task.cancel()
        await asyncio.gather(*people, return_exceptions=True)
