"""An answer from the queue to its end, by a worker in this process on a real server."""

from __future__ import annotations

import pytest

from shared.log.events import Counts, Token, Usage, decode
from shared.queue.lanes import Queue
from tests.support.plays import (
    breaks_off,
    says,
    until_nothing_is_queued,
)
from tests.support.stage import DEADLINE_S, Stage
from workers import run as run_module
from workers.backends.contract import Finish

pytestmark = pytest.mark.usefixtures("queue_partitions")


async def test_a_completed_answer_has_its_full_text_and_leaves_empty_queues(url):
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
        await until_nothing_is_queued(stage)
        assert stage.backend.open == 0


async def test_an_answer_that_ends_at_once_is_never_noted_as_running(url, monkeypatch):
    noted = []

    async def note(queue, ticket, now_ms):
        noted.append(ticket.id)

    monkeypatch.setattr(Queue, "note_begun", note)
    monkeypatch.setattr(run_module, "RUNNING_NOTE_DELAY_S", DEADLINE_S)
    async with Stage(url, says("a")) as stage:
        await stage.start()
        await stage.ended(await stage.ask())
        await until_nothing_is_queued(stage)

        assert not noted


async def test_a_failed_attempt_is_noted_as_running_before_its_retry_is_scheduled(url, monkeypatch):
    monkeypatch.setattr(run_module, "RUNNING_NOTE_DELAY_S", DEADLINE_S)
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


async def test_thirty_concurrent_answers_all_have_their_full_text(url):
    texts = [f"piece {n} " for n in range(20)]
    async with Stage(url, says(*texts)) as stage:
        await stage.start()
        ids = [await stage.ask() for _ in range(30)]
        for generation_id in ids:
            await stage.ended(generation_id)

            assert await stage.text(generation_id) == "".join(texts)
        await until_nothing_is_queued(stage)


async def test_a_worker_that_starts_later_runs_the_waiting_prompts(url):
    async with Stage(url, says("a")) as stage:
        ids = [await stage.ask(), await stage.ask(priority="batch")]
        await stage.start()
        for generation_id in ids:
            await stage.ended(generation_id)
