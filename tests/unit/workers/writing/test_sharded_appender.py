"""One appender for each server of a cluster: a silent server delays only its own generations."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from shared.errors import Unavailable
from shared.log.events import Start, Token, encode
from shared.log.ids import EventId
from shared.log.records import Ok
from tests.support.wait import until
from workers.writing.outbox import Outbox
from workers.writing.sharded_appender import ShardedAppender

DEADLINE_S = 5.0
AWAY = Unavailable("no answer")


class Store:
    """Answers a call when the test says so: `calls` has a future for each, by generation."""

    def __init__(self):
        self.calls = {}

    async def append_many(self, batches):
        answers = [asyncio.get_running_loop().create_future() for _ in batches]
        for batch, answer in zip(batches, answers, strict=True):
            self.calls.setdefault(batch.generation_id, []).append(answer)
        return [await answer for answer in answers]

    async def asked(self, name, times=1):
        await until(lambda: len(self.calls.get(name, ())) >= times, DEADLINE_S, f"a call of {name}")
        return self.calls[name][times - 1]


class Writer:
    def __init__(self, name):
        start = (EventId(1, 1), encode(Start(1, "demo")))
        self.outbox = Outbox(
            name, "mine", found=(), start=start, fields={b"owner": b"o"}, now_s=100.0
        )

    def on_answer(self):
        pass

    def say(self, appender, text):
        self.outbox.push(Token(text))
        appender.offer(self, is_urgent=True)


@asynccontextmanager
async def running(places):
    """`places`: the server of each generation, which the test may change."""
    store = Store()
    clock = asyncio.get_running_loop().time
    appender = ShardedAppender(store, clock, places.__getitem__)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(appender.run())
        yield appender, store
        task.cancel()


async def test_a_silent_server_delays_no_generation_of_another_one():
    async with running({"a": 1, "b": 2}) as (appender, store):
        a, b = Writer("a"), Writer("b")
        a.say(appender, "x")
        await store.asked("a")  # and the server does not answer

        for times in range(1, 4):
            b.say(appender, "y")
            (await store.asked("b", times)).set_result(Ok())
            await until(lambda: b.outbox.is_settled, DEADLINE_S, "the answer of b")

        assert not a.outbox.is_settled
        assert (appender.calls, appender.entries) == (4, 3)


async def test_a_generation_that_moved_goes_on_at_its_new_server_after_the_old_call_failed():
    places = {"a": 1, "b": 1}
    async with running(places) as (appender, store):
        a = Writer("a")
        a.say(appender, "x")
        lost = await store.asked("a")
        places["a"] = 2
        a.say(appender, "y")
        await asyncio.sleep(0)
        assert len(store.calls["a"]) == 1, "one call of a generation at a time"

        lost.set_result(AWAY)
        (await store.asked("a", 2)).set_result(Ok())
        await until(lambda: a.outbox.is_settled, DEADLINE_S, "the answer")


async def test_a_refused_call_is_repeated_while_the_others_of_its_server_go_on():
    """Such as a generation whose slot is moving."""
    async with running({"a": 1, "b": 1}) as (appender, store):
        a, b = Writer("a"), Writer("b")
        a.outbox.push(Token("x"))
        b.outbox.push(Token("y"))
        appender.offer(a)
        appender.offer(b)
        (await store.asked("b")).set_result(Ok())
        (await store.asked("a")).set_result(AWAY)

        b.say(appender, "z")
        (await store.asked("b", 2)).set_result(Ok())
        await until(lambda: b.outbox.is_settled, DEADLINE_S, "the answer of b")
        (await store.asked("a", 2)).set_result(Ok())
        await until(lambda: a.outbox.is_settled, DEADLINE_S, "the answer of a")


async def test_each_server_has_a_time_of_its_last_answer():
    async with running({"a": 1, "b": 2}) as (appender, _):
        before = appender.last_ok_of("a"), appender.last_ok_of("b")
        appender.note_ok("a", before[0] + 7)

        assert appender.last_ok_of("a") == before[0] + 7
        assert appender.last_ok_of("b") == before[1]
