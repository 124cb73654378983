"""An answer from the queue to its end, by a worker in this process on a real server."""

from __future__ import annotations

import pytest

from shared.config.limits import OwnerLimits
from shared.log.events import Counts, Token, Usage, decode
from shared.queue.lanes import Queue, forget
from shared.redis import keys
from tests.support.backend_scripts import (
    breaks_off,
    says,
    until_nothing_is_queued,
)
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness
from workers import running_note
from workers.backends.contract import Finish

pytestmark = pytest.mark.usefixtures("queue_partitions")


async def test_a_completed_answer_has_its_full_text_and_leaves_empty_queues(url):
    async def backend_script(prefix):
        yield []
        for text in ("Hel", "lo ", "wörld"):
            yield [Token(text)]
        yield [Usage(3, 4, 7), Finish("length")]

    async with WorkerHarness(url, backend_script) as harness:
        await harness.start()
        generation_id = await harness.ask(session="chat")
        meta = await harness.ended(generation_id)

        events = await harness.events(generation_id)
        assert await harness.text(generation_id) == "Hello wörld"
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
        assert (harness.backend.prefixes, harness.backend.seeds) == ([""], [generation_id])
        await until_nothing_is_queued(harness)
        assert harness.backend.open == 0


async def test_an_answer_that_ends_at_once_is_never_noted_as_running(url, monkeypatch):
    noted = []

    async def note(queue, ticket, now_ms):
        noted.append(ticket.id)

    monkeypatch.setattr(Queue, "note_begun", note)
    monkeypatch.setattr(running_note, "RUNNING_NOTE_DELAY_S", DEADLINE_S)
    async with WorkerHarness(url, says("a")) as harness:
        await harness.start()
        await harness.ended(await harness.ask())
        await until_nothing_is_queued(harness)

        assert not noted


async def test_a_failed_attempt_is_noted_as_running_before_its_retry_is_scheduled(url, monkeypatch):
    monkeypatch.setattr(running_note, "RUNNING_NOTE_DELAY_S", DEADLINE_S)
    async with WorkerHarness(url, breaks_off("a"), says("b")) as harness:
        worker = await harness.start()
        steps = []
        for name in ("note_begun", "try_later"):
            step = getattr(worker.queue, name)

            async def told(*args, name=name, step=step):
                steps.append(name)
                await step(*args)

            monkeypatch.setattr(worker.queue, name, told)
        await harness.ended(await harness.ask())

        assert steps == ["note_begun", "try_later"]


async def test_thirty_concurrent_answers_all_have_their_full_text(url):
    texts = [f"piece {n} " for n in range(20)]
    async with WorkerHarness(url, says(*texts)) as harness:
        await harness.start()
        ids = [await harness.ask() for _ in range(30)]
        for generation_id in ids:
            await harness.ended(generation_id)

            assert await harness.text(generation_id) == "".join(texts)
        await until_nothing_is_queued(harness)


async def test_a_worker_that_starts_later_runs_the_waiting_prompts(url):
    async with WorkerHarness(url, says("a")) as harness:
        ids = [await harness.ask(), await harness.ask(priority="batch")]
        await harness.start()
        for generation_id in ids:
            await harness.ended(generation_id)


@pytest.mark.parametrize(
    ("items", "tokens"),
    [
        ([Token("a"), Usage(30, 12, 42), Finish("stop")], 42),
        ([Token("a"), Token("b"), Finish("stop")], 2),
    ],
    ids=["reported", "counted"],
)
async def test_the_tokens_of_an_ended_answer_are_settled_once(url, items, tokens):
    async def backend_script(prefix):
        yield items

    limits = OwnerLimits(active_max=1, tokens_per_min=10_000, tokens_per_day=10_000)
    async with WorkerHarness(url, backend_script) as harness:
        await harness.start()
        generation_id = await harness.ask(limits=limits, tokens=3_000)
        owner = (await harness.ended(generation_id)).owner
        record, active = keys.owner_limits(owner), keys.owner_active(owner)

        async def is_settled():
            return not await harness.redis.zcard(active)

        await until(is_settled, DEADLINE_S, "the settlement")
        # Another worker may find the entry of the ended generation, and leaves it once more.
        await forget(harness.store, generation_id)

        assert int(await harness.redis.hget(record, "used")) == tokens
        again = harness.new(limits=limits, tokens=0)
        left = (await harness.acceptor.accept(again)).allowance
        # Some tokens of the minute may have come back meanwhile.
        assert 10_000 - tokens <= left.tokens <= 10_000
        assert left.day_tokens == 10_000 - tokens
