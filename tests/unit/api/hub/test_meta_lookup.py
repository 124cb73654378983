"""Shared reads of meta: one read for callers of the same moment, and no failure is kept."""

from __future__ import annotations

import asyncio

import pytest

from api.hub import meta_lookup as module
from api.hub.meta_lookup import MetaLookup
from shared.errors import Unavailable
from tests.support.wait import until


class Reads:
    """A store whose reads wait until the test sets their answers."""

    def __init__(self):
        self.names = []
        self.answers = []

    async def meta(self, generation_id):
        self.names.append(generation_id)
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


@pytest.fixture
def reads():
    return Reads()


async def ask(tasks, lookup, count, name="a"):
    """Start `count` concurrent calls of `meta`, and let each run until it waits."""
    calls = [tasks.create_task(lookup.meta(name)) for _ in range(count)]
    await asyncio.sleep(0)
    return calls


async def test_a_thousand_concurrent_calls_make_one_read(reads):
    async with asyncio.TaskGroup() as tasks:
        calls = await ask(tasks, MetaLookup(reads.meta), 1_000)
        reads.answers[0].set_result("meta")
    assert {task.result() for task in calls} == {"meta"} and reads.names == ["a"]


async def test_each_generation_has_a_read_of_its_own(reads):
    lookup = MetaLookup(reads.meta)
    async with asyncio.TaskGroup() as tasks:
        await ask(tasks, lookup, 2, "a")
        await ask(tasks, lookup, 2, "b")
        for answer in reads.answers:
            answer.set_result(None)
    assert reads.names == ["a", "b"]


async def test_an_answer_that_several_callers_shared_is_kept_for_a_moment(reads, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_KEEP_S", 60.0)
    lookup = MetaLookup(reads.meta)
    async with asyncio.TaskGroup() as tasks:
        await ask(tasks, lookup, 2)
        reads.answers[0].set_result("meta")
    assert await lookup.meta("a") == "meta" and len(reads.names) == 1

    lookup.forget("a")

    async with asyncio.TaskGroup() as tasks:
        await ask(tasks, lookup, 1)
        reads.answers[1].set_result("newer")
    assert len(reads.names) == 2


async def test_an_answer_for_a_single_caller_is_not_kept(reads):
    lookup = MetaLookup(reads.meta)
    async with asyncio.TaskGroup() as tasks:
        await ask(tasks, lookup, 1)
        reads.answers[0].set_result("meta")
    async with asyncio.TaskGroup() as tasks:
        await ask(tasks, lookup, 1)
        reads.answers[1].set_result("newer")
    assert len(reads.names) == 2


async def test_a_failure_reaches_all_callers_and_is_not_kept(reads):
    lookup = MetaLookup(reads.meta)
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as tasks:
            first, *_ = await ask(tasks, lookup, 3)
            reads.answers[0].set_exception(Unavailable("away"))
            await asyncio.wait([first])
    assert raised.group_contains(Unavailable)
    async with asyncio.TaskGroup() as tasks:
        await ask(tasks, lookup, 1)
        reads.answers[1].set_result("meta")


async def test_when_the_reading_caller_is_cancelled_another_caller_reads(reads):
    lookup = MetaLookup(reads.meta)
    async with asyncio.TaskGroup() as tasks:
        first, *others = await ask(tasks, lookup, 3)
        first.cancel()
        await asyncio.wait([first])
        await until(lambda: len(reads.names) == 2, 5.0, "the next read")
        reads.answers[1].set_result("meta")
    assert [task.result() for task in others] == ["meta", "meta"]


async def test_a_waiting_caller_may_be_cancelled_without_effect_on_the_others(reads):
    lookup = MetaLookup(reads.meta)
    async with asyncio.TaskGroup() as tasks:
        first, second, third = await ask(tasks, lookup, 3)
        second.cancel()
        await asyncio.wait([second])
        reads.answers[0].set_result("meta")
    assert (first.result(), third.result()) == ("meta", "meta")
