"""Reads with deadlines that share one timer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from workers.backends.upstream_http import Watch


class FakeContent:
    """A body whose reads wait for what the test gives."""

    def __init__(self) -> None:
        self.waiter: asyncio.Future[bytes] | None = None

    async def readany(self) -> bytes:
        self.waiter = asyncio.get_running_loop().create_future()
        return await self.waiter

    def set_exception(self, exc: BaseException) -> None:
        assert self.waiter is not None and not self.waiter.done(), "it would spoil the next read"
        self.waiter.set_exception(exc)


class FakeTimer:
    def __init__(self, at: float, ring: Any) -> None:
        self.at, self.ring, self.is_cancelled = at, ring, False

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeLoop:
    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, ring: Any) -> FakeTimer:
        self.timers.append(FakeTimer(at, ring))
        return self.timers[-1]

    def advance(self, now: float) -> None:
        self.now = now
        due = [t for t in self.timers if t.at <= now and not t.is_cancelled]
        self.timers = [t for t in self.timers if t not in due and not t.is_cancelled]
        for timer in due:
            timer.ring()


Watched = tuple[Watch, FakeContent, FakeLoop]


@pytest.fixture
async def watched() -> Watched:
    content, loop = FakeContent(), FakeLoop()
    watch = Watch(content)  # type: ignore[arg-type]
    watch._loop = loop  # type: ignore[assignment]
    return watch, content, loop


async def start(watch: Watch, content: FakeContent, deadline: float) -> asyncio.Task[bytes]:
    content.waiter = None
    task = asyncio.create_task(watch.read(deadline))
    while content.waiter is None:  # noqa: ASYNC110 - one round of the loop, no waiting in time
        await asyncio.sleep(0)
    return task


async def timed_out(task: asyncio.Task[bytes]) -> None:
    await asyncio.wait({task}, timeout=5.0)
    assert isinstance(task.exception(), TimeoutError)


async def give(content: FakeContent, task: asyncio.Task[bytes]) -> bytes:
    assert content.waiter is not None
    content.waiter.set_result(b"x")
    return await task


async def test_silence_ends_a_read_at_its_deadline(watched: Watched) -> None:
    watch, content, loop = watched
    task = await start(watch, content, 10.0)
    loop.advance(9.9)
    assert content.waiter is not None and not content.waiter.done()
    loop.advance(10.0)

    await timed_out(task)


async def test_many_reads_share_one_timer(watched: Watched) -> None:
    watch, content, loop = watched
    for now in range(9):
        loop.now = float(now)
        assert await give(content, await start(watch, content, now + 10.0)) == b"x"

    assert len(loop.timers) == 1


async def test_a_timer_that_rings_early_is_set_again(watched: Watched) -> None:
    watch, content, loop = watched
    await give(content, await start(watch, content, 10.0))
    task = await start(watch, content, 15.0)
    loop.advance(10.0)
    assert content.waiter is not None and not content.waiter.done()
    loop.advance(15.0)

    await timed_out(task)


async def test_an_earlier_deadline_moves_the_timer(watched: Watched) -> None:
    watch, content, loop = watched
    await give(content, await start(watch, content, 100.0))
    task = await start(watch, content, 5.0)
    loop.advance(5.0)

    await timed_out(task)


async def test_between_reads_no_deadline_holds(watched: Watched) -> None:
    watch, content, loop = watched
    await give(content, await start(watch, content, 10.0))
    loop.advance(50.0)

    assert await give(content, await start(watch, content, 60.0)) == b"x"


async def test_closing_leaves_no_timer(watched: Watched) -> None:
    watch, content, loop = watched
    await give(content, await start(watch, content, 10.0))
    (timer,) = loop.timers
    watch.close()
    watch.close()

    assert timer.is_cancelled
