"""One look at meta serves all who come within a moment, and never hides a failure."""

from __future__ import annotations

import asyncio

import pytest

from api.hub import meta_lookup as looks
from api.hub.meta_lookup import MetaLookup
from shared.errors import Unavailable
from tests.support.wait import until


class Reads:
    """A store whose answers come when told to."""

    def __init__(self):
        self.asked = []
        self.answers = []

    async def meta(self, generation_id):
        self.asked.append(generation_id)
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


@pytest.fixture
def reads():
    return Reads()


async def ask(tasks, looks, count, name="a"):
    asked = [tasks.create_task(looks.meta(name)) for _ in range(count)]
    await asyncio.sleep(0)
    return asked


async def test_a_thousand_ask_once(reads):
    async with asyncio.TaskGroup() as tasks:
        asked = await ask(tasks, MetaLookup(reads.meta), 1_000)
        reads.answers[0].set_result("meta")
    assert {task.result() for task in asked} == {"meta"} and reads.asked == ["a"]


async def test_each_generation_has_its_own_look(reads):
    found = MetaLookup(reads.meta)
    async with asyncio.TaskGroup() as tasks:
        await ask(tasks, found, 2, "a")
        await ask(tasks, found, 2, "b")
        for answer in reads.answers:
            answer.set_result(None)
    assert reads.asked == ["a", "b"]


async def test_what_many_asked_for_serves_the_next_for_a_moment(reads, monkeypatch):
    monkeypatch.setattr(looks, "ANSWER_KEEP_S", 60.0)
    found = MetaLookup(reads.meta)
    async with asyncio.TaskGroup() as tasks:
        await ask(tasks, found, 2)
        reads.answers[0].set_result("meta")
    assert await found.meta("a") == "meta" and len(reads.asked) == 1

    found.forget("a")

    async with asyncio.TaskGroup() as tasks:
        await ask(tasks, found, 1)
        reads.answers[1].set_result("newer")
    assert len(reads.asked) == 2


async def test_what_one_asked_for_is_not_kept(reads):
    found = MetaLookup(reads.meta)
    async with asyncio.TaskGroup() as tasks:
        await ask(tasks, found, 1)
        reads.answers[0].set_result("meta")
    async with asyncio.TaskGroup() as tasks:
        await ask(tasks, found, 1)
        reads.answers[1].set_result("newer")
    assert len(reads.asked) == 2


async def test_a_failure_is_everybodys_and_is_not_kept(reads):
    found = MetaLookup(reads.meta)
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as tasks:
            first, *_ = await ask(tasks, found, 3)
            reads.answers[0].set_exception(Unavailable("away"))
            await asyncio.wait([first])
    assert raised.group_contains(Unavailable)
    async with asyncio.TaskGroup() as tasks:
        await ask(tasks, found, 1)
        reads.answers[1].set_result("meta")


async def test_when_the_one_who_looks_leaves_another_looks(reads):
    found = MetaLookup(reads.meta)
    async with asyncio.TaskGroup() as tasks:
        first, *others = await ask(tasks, found, 3)
        first.cancel()
        await asyncio.wait([first])
        await until(lambda: len(reads.asked) == 2, 5.0, "the next look")
        reads.answers[1].set_result("meta")
    assert [task.result() for task in others] == ["meta", "meta"]


async def test_one_who_waits_may_leave_without_harm(reads):
    found = MetaLookup(reads.meta)
    async with asyncio.TaskGroup() as tasks:
        first, second, third = await ask(tasks, found, 3)
        second.cancel()
        await asyncio.wait([second])
        reads.answers[0].set_result("meta")
    assert (first.result(), third.result()) == ("meta", "meta")
