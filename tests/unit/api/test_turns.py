"""Turns: so many at once, none without end, and all over when the node drains."""

from __future__ import annotations

import asyncio

import pytest

from api import turns
from api.turns import Turns
from shared.errors import RequestError, Unavailable


async def test_only_so_many_have_a_turn() -> None:
    taken, most, now = Turns(2), 0, 0

    async def one() -> None:
        nonlocal most, now
        async with taken.turn():
            now += 1
            most = max(most, now)
            for _ in range(5):
                await asyncio.sleep(0)
            now -= 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(7):
            tasks.create_task(one())
    assert (most, now) == (2, 0)


async def test_who_waits_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "WAIT_S", 0.02)
    taken = Turns(1)
    async with taken.turn():
        with pytest.raises(Unavailable):
            async with taken.turn():
                raise AssertionError("a second turn")
    async with taken.turn():
        pass


async def test_a_turn_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_S", 0.02)
    with pytest.raises(RequestError) as caught:
        async with Turns(9).turn():
            await asyncio.Event().wait()
    assert caught.value.status == 408


async def test_a_drain_waits_for_what_ends_and_ends_what_does_not() -> None:
    taken, may_end, codes = Turns(9), asyncio.Event(), []

    async def one(until: asyncio.Event) -> None:
        try:
            async with taken.turn():
                await until.wait()
            codes.append("whole")
        except RequestError as exc:
            codes.append(exc.code)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(one(may_end))
        tasks.create_task(one(asyncio.Event()))
        await asyncio.sleep(0)
        draining = tasks.create_task(taken.drain(0.05))
        await asyncio.sleep(0)
        may_end.set()
        async with asyncio.timeout(5):
            await draining
        assert codes == ["whole", "draining"]
    with pytest.raises(RequestError):
        async with taken.turn():
            raise AssertionError("a turn after the drain")
    await taken.drain(5)


async def test_a_drain_with_nothing_to_wait_for_is_over_at_once() -> None:
    async with asyncio.timeout(1):
        await Turns(9).drain(60)
