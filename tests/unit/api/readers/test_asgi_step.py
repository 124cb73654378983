"""Coroutines that callbacks run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.readers.asgi_step import Step
from tests.support.hub_harness import settle


class Ends(list[tuple[Any, BaseException | None]]):
    """An `on_done` that records its calls."""

    def __call__(self, value: Any, error: BaseException | None) -> None:
        self.append((value, error))


async def test_a_coroutine_that_does_not_wait_ends_within_start() -> None:
    async def quick() -> int:
        return 7

    ends = Ends()
    step = Step(ends)
    assert step.start(quick())
    assert (step.value, ends, step.is_busy) == (7, [], False)


async def test_a_coroutine_that_waits_ends_through_the_callback() -> None:
    event = asyncio.Event()

    async def slow() -> str:
        await event.wait()
        await asyncio.sleep(0)
        return "done"

    ends = Ends()
    step = Step(ends)
    assert not step.start(slow())
    assert step.is_busy
    event.set()
    await settle()
    assert ends == [("done", None)]
    assert not step.is_busy


async def test_an_error_is_raised_by_start_or_passed_to_the_callback() -> None:
    event = asyncio.Event()

    async def fails_at_once() -> None:
        raise OSError("now")

    async def fails_later() -> None:
        await event.wait()
        raise OSError("later")

    ends = Ends()
    step = Step(ends)
    with pytest.raises(OSError, match="now"):
        step.start(fails_at_once())
    assert not step.is_busy
    step.start(fails_later())
    event.set()
    await settle()
    assert str(ends[0][1]) == "later"


async def test_a_cancelled_future_reaches_the_coroutine() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def waits() -> None:
        await future

    ends = Ends()
    step = Step(ends)
    step.start(waits())
    future.cancel()
    await settle()
    assert isinstance(ends[0][1], asyncio.CancelledError)


@pytest.mark.parametrize("is_scheduled", [False, True])
async def test_cancel_closes_the_coroutine_without_the_callback(is_scheduled: bool) -> None:
    """Also when the event loop has already scheduled the future's callback."""
    event = asyncio.Event()
    closed: list[str] = []

    async def waits(name: str) -> None:
        try:
            await event.wait()
        finally:
            closed.append(name)

    ends = Ends()
    step = Step(ends)
    step.start(waits("first"))
    if is_scheduled:
        event.set()
    step.cancel()
    assert closed == ["first"]
    event.clear()
    step.start(waits("second"))
    await settle()
    assert ends == []
    event.set()
    await settle()
    assert (closed, ends) == (["first", "second"], [(None, None)])
