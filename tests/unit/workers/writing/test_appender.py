"""The appender: what a pipeline carries, in which order, its pace, and Redis outages."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from shared.errors import Unavailable
from shared.log.events import End, Start, Token, decode, encode
from shared.log.ids import START, EventId
from shared.log.records import Append, Ended, Fenced, Lost, Ok
from workers.writing import appender as module
from workers.writing.appender import Appender
from workers.writing.outbox import Outbox

AWAY = Unavailable("no answer")
DEADLINE_S = 5.0


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


class FakeStore:
    """Answers a call when the test sets the result; `calls` has the calls in order."""

    def __init__(self):
        self.calls = asyncio.Queue()
        self.under_way = 0

    async def append_many(self, batches):
        return await self._ask(list(batches))

    async def restore(self, *args):
        return await self._ask(args)

    async def _ask(self, what):
        assert self.under_way == 0, "one call at a time"
        self.under_way += 1
        answer = asyncio.get_running_loop().create_future()
        self.calls.put_nowait((what, answer))
        try:
            return await answer
        finally:
            self.under_way -= 1

    async def next(self):
        async with asyncio.timeout(DEADLINE_S):
            return await self.calls.get()


class Writer:
    def __init__(self, name):
        self.answers = 0
        self.answered = asyncio.Event()
        start = (EventId(1, 1), encode(Start(1, "demo")))
        self.outbox = Outbox(
            name, "mine", found=(), start=start, fields={b"owner": b"o"}, now_s=100.0
        )

    def on_answer(self):
        self.answers += 1
        self.answered.set()

    async def until_answered(self):
        async with asyncio.timeout(DEADLINE_S):
            await self.answered.wait()
        self.answered.clear()


@asynccontextmanager
async def running(clock=None):
    store = FakeStore()
    appender = Appender(store, clock or Clock())
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(appender.run())
        yield appender, store
        task.cancel()


def push(appender, writer, *texts):
    for text in texts:
        writer.outbox.push(Token(text))
    appender.offer(writer)


def texts(batch):
    return [getattr(decode(raw), "text", "end") for raw in batch.entries]


async def test_a_single_token_is_sent_at_once():
    async with running() as (appender, store):
        writer = Writer("a")
        push(appender, writer, "x")

        (batch,), answer = await store.next()
        assert (batch.generation_id, texts(batch)) == ("a", ["x"])
        answer.set_result([Ok()])
        await writer.until_answered()

        assert writer.outbox.is_settled
        assert (appender.entries, appender.calls) == (1, 1)


async def test_entries_offered_together_are_sent_in_one_call_in_order():
    async with running() as (appender, store):
        writers = [Writer(name) for name in "abc"]
        for writer in writers:
            push(appender, writer, writer.outbox.generation_id.upper())
        push(appender, writers[0], "again")

        batches, answer = await store.next()
        answer.set_result([Ok()] * 3)

        assert [(batch.generation_id, texts(batch)) for batch in batches] == [
            ("a", ["Aagain"]),
            ("b", ["B"]),
            ("c", ["C"]),
        ]


async def test_entries_that_arrive_during_a_call_are_sent_with_the_next_call():
    clock = Clock()
    async with running(clock) as (appender, store):
        a, b = Writer("a"), Writer("b")
        push(appender, a, "1")
        _, first = await store.next()
        push(appender, a, "2")
        push(appender, b, "3")
        push(appender, a, "4")
        assert store.calls.empty(), "one call at a time"
        clock.now_s += module.PACE_S
        first.set_result([Ok()])

        batches, answer = await store.next()
        answer.set_result([Ok()] * 2)

        assert {batch.generation_id: texts(batch) for batch in batches} == {
            "a": ["24"],
            "b": ["3"],
        }


async def test_a_generation_is_appended_to_at_most_once_per_pace_s():
    clock = Clock()
    async with running(clock) as (appender, store):
        fast, other = Writer("fast"), Writer("other")
        push(appender, fast, "1")
        _, answer = await store.next()
        answer.set_result([Ok()])
        await fast.until_answered()
        push(appender, fast, "2")
        clock.now_s += 0.9 * module.PACE_S
        push(appender, fast, "3")
        push(appender, other, "4")

        batches, answer = await store.next()
        answer.set_result([Ok()])
        assert [batch.generation_id for batch in batches] == ["other"]
        clock.now_s += 0.2 * module.PACE_S
        batches, answer = await store.next()
        answer.set_result([Ok()])
        assert [texts(batch) for batch in batches] == [["23"]]


async def test_an_urgent_entry_does_not_wait_for_the_pace():
    async with running() as (appender, store):
        writer = Writer("a")
        push(appender, writer, "1")
        _, answer = await store.next()
        answer.set_result([Ok()])
        await writer.until_answered()
        writer.outbox.push(End("completed", "stop"))
        appender.offer(writer, is_urgent=True)

        (batch,), answer = await store.next()
        answer.set_result([Ok()])
        assert texts(batch) == ["end"]


async def test_each_writer_gets_its_own_outcome():
    async with running() as (appender, store):
        writers = [Writer(name) for name in "abcd"]
        for writer in writers:
            push(appender, writer, "x")
        _, answer = await store.next()

        answer.set_result([Ok(), Ended(), Fenced(), Ok()])
        for writer in writers:
            await writer.until_answered()

        stopped = [writer.outbox.stopped for writer in writers]
        assert stopped == [None, "ended", "fenced", None]


async def test_a_writer_without_entries_makes_no_call():
    async with running() as (appender, store):
        idle, busy = Writer("idle"), Writer("busy")
        appender.offer(idle)
        push(appender, busy, "x")

        batches, answer = await store.next()
        answer.set_result([Ok()])

        assert [batch.generation_id for batch in batches] == ["busy"]


async def test_a_long_outbox_is_sent_in_several_calls():
    async with running() as (appender, store):
        writer = Writer("a")
        for _ in range(30):
            push(appender, writer, "x" * 8_000, "y" * 8_000)
        entries = []
        while not writer.outbox.is_settled:
            (batch,), answer = await store.next()
            entries += texts(batch)
            answer.set_result([Ok()])
            await writer.until_answered()

        assert "".join(entries) == ("x" * 8_000 + "y" * 8_000) * 30
        assert appender.calls > 1


async def test_while_redis_is_away_the_same_call_is_repeated_with_growing_pauses(monkeypatch):
    pauses = []

    async def pause(seconds):
        pauses.append(seconds)

    async with running() as (appender, store):
        monkeypatch.setattr(module.asyncio, "sleep", pause)
        writer = Writer("a")
        push(appender, writer, "x")
        (first,), answer = await store.next()
        for _ in range(9):
            answer.set_exception(AWAY)
            (again,), answer = await store.next()
            assert again == first
        answer.set_result([Ok()])
        await writer.until_answered()

    assert len(pauses) == 9
    for n, seconds in enumerate(pauses):
        planned = min(module.APPEND_RETRY_PAUSE_MIN_S * 2**n, module.APPEND_RETRY_PAUSE_MAX_S)
        assert 0.5 * planned <= seconds <= 1.5 * planned


async def test_the_pauses_are_short_again_after_an_answer(monkeypatch):
    clock = Clock()
    pauses = []

    async def pause(seconds):
        pauses.append(seconds)

    async with running(clock) as (appender, store):
        monkeypatch.setattr(module.asyncio, "sleep", pause)
        writer = Writer("a")
        for outcome in (AWAY, AWAY, AWAY, Ok(), AWAY):
            clock.now_s += module.PACE_S
            if writer.outbox.is_settled:
                push(appender, writer, "x")
            _, answer = await store.next()
            answer.set_result([outcome])
            await writer.until_answered()
        _, answer = await store.next()
        answer.set_result([Ok()])

    assert pauses[-1] <= 1.5 * module.APPEND_RETRY_PAUSE_MIN_S


async def test_a_refused_batch_is_sent_again_beside_new_entries(monkeypatch):
    clock = Clock()

    async def pause(seconds):
        pass

    async with running(clock) as (appender, store):
        monkeypatch.setattr(module.asyncio, "sleep", pause)
        full, fine = Writer("full"), Writer("fine")
        push(appender, full, "x")
        push(appender, fine, "y")
        (refused, _), answer = await store.next()
        answer.set_result([AWAY, Ok()])
        await fine.until_answered()
        clock.now_s += module.PACE_S
        push(appender, fine, "z")

        resent = []
        while len(resent) < 2:
            batches, answer = await store.next()
            resent += batches
            answer.set_result([Ok()] * len(batches))

        assert refused in resent
        assert ["z"] in [texts(batch) for batch in resent]


async def test_a_loss_is_restored_before_the_next_append():
    async with running() as (appender, store):
        writer = Writer("a")
        push(appender, writer, "x")
        _, answer = await store.next()
        answer.set_result([Lost(START)])

        restore, answer = await store.next()
        assert restore == ("a", "mine", 1, START, {b"owner": b"o"}, writer.outbox.log[:1])
        answer.set_result(Ok())
        (batch,), answer = await store.next()
        answer.set_result([Ok()])

        assert isinstance(batch, Append)
        assert texts(batch) == ["x"]


async def test_an_unanswered_restore_is_repeated(monkeypatch):
    async def pause(seconds):
        pass

    async with running() as (appender, store):
        monkeypatch.setattr(module.asyncio, "sleep", pause)
        writer = Writer("a")
        push(appender, writer, "x")
        _, answer = await store.next()
        answer.set_result([Lost(START)])
        first, answer = await store.next()
        answer.set_exception(AWAY)

        again, answer = await store.next()
        answer.set_result(Fenced())
        await writer.until_answered()

        assert again == first


async def test_an_accepted_end_settles_the_outbox():
    async with running() as (appender, store):
        writer = Writer("a")
        writer.outbox.push(End("completed", "stop"))
        push(appender, writer)
        (batch,), answer = await store.next()
        answer.set_result([Ok()])
        await writer.until_answered()

        assert batch.status == "completed"
        assert writer.outbox.stopped == "ended"


async def test_last_ok_s_is_the_time_of_the_last_answer(monkeypatch):
    async def pause(seconds):
        pass

    clock = Clock()
    async with running(clock) as (appender, store):
        monkeypatch.setattr(module.asyncio, "sleep", pause)
        writer = Writer("a")
        push(appender, writer, "x")
        _, answer = await store.next()
        clock.now_s = 105.0
        answer.set_exception(AWAY)
        await writer.until_answered()
        _, answer = await store.next()
        assert appender.last_ok_s == 100.0

        clock.now_s = 107.0
        answer.set_result([Ok()])
        await writer.until_answered()

        assert appender.last_ok_s == 107.0


async def test_cancellation_during_a_call_ends_the_appender():
    async with running() as (appender, store):
        push(appender, Writer("a"), "x")
        await store.next()
