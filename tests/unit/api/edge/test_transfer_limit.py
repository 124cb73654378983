"""Turns: so many at once, none without end, and all over when the node drains."""

from __future__ import annotations

import asyncio

import pytest

from api.edge import pace
from api.edge import transfer_limit as turns
from api.edge.transfer_limit import Turns
from shared.errors import RequestError


async def test_only_so_many_have_a_turn() -> None:
    taken, most, now = Turns(2, 2), 0, 0

    async def one() -> None:
        nonlocal most, now
        async with taken.turn("ann"):
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
    taken = Turns(1, 1)
    async with taken.turn("ann"):
        with pytest.raises(RequestError) as caught:
            async with taken.turn("ann"):
                raise AssertionError("a second turn")
    assert (caught.value.code, caught.value.retryable) == ("too_many_transfers", True)
    assert caught.value.retry_after_s
    async with taken.turn("ann"):
        pass


async def test_a_turn_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_S", 0.02)
    with pytest.raises(RequestError) as caught:
        async with Turns(9, 9).turn("ann"):
            await asyncio.Event().wait()
    assert caught.value.status == 408


async def test_a_drain_waits_for_what_ends_and_ends_what_does_not() -> None:
    taken, may_end, codes = Turns(9, 9), asyncio.Event(), []

    async def one(until: asyncio.Event) -> None:
        try:
            async with taken.turn("ann"):
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
        async with taken.turn("ann"):
            raise AssertionError("a turn after the drain")
    await taken.drain(5)


async def test_a_drain_with_nothing_to_wait_for_is_over_at_once() -> None:
    async with asyncio.timeout(1):
        await Turns(9, 9).drain(60)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WINDOW_S", 0.05), ("WANTED_S", 0.05)):
        monkeypatch.setattr(pace, name, value)
    monkeypatch.setattr(turns, "LOOK_S", 0.01)


@pytest.mark.usefixtures("quick")
async def test_a_peer_that_is_too_slow_loses_its_turn() -> None:
    with pytest.raises(RequestError) as caught:
        async with Turns(9, 9).turn("ann") as turn, turn.waiting():
            await asyncio.Event().wait()
    assert caught.value.code == "request_timeout"
    assert "4096 bytes a second" in caught.value.message


async def test_a_byte_at_the_moment_of_the_limit_does_not_end_the_watch(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for that byte ends before its limit does, and the next wait has a limit, too."""
    monkeypatch.setattr(turns, "LOOK_S", 10.0)
    async with Turns(1, 1).turn("ann") as turn:
        turn._waited_s = pace.WINDOW_S
        monkeypatch.setattr(turns, "LOOK_S", 0.01)
        async with turn.waiting():
            turn._look()  # slow: the limit is now, and the byte is there already
        with pytest.raises(RequestError) as caught:
            async with asyncio.timeout(2), turn.waiting():
                await asyncio.Event().wait()

    assert caught.value.status == 408


@pytest.mark.usefixtures("quick")
async def test_a_peer_that_is_fast_enough_keeps_it() -> None:
    moved = 0
    async with asyncio.timeout(5), Turns(9, 9).turn("ann") as turn:
        turn.moved = lambda: moved
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 0.2
        while loop.time() < until_s:
            async with turn.waiting():
                await asyncio.sleep(0)
            moved += 4_096


@pytest.mark.usefixtures("quick")
async def test_a_peer_is_not_blamed_for_what_is_ours() -> None:
    """The store is slow: meanwhile nobody waits for the peer."""
    async with Turns(9, 9).turn("ann") as turn:
        async with turn.waiting():
            pass
        slow = asyncio.Event()
        asyncio.get_running_loop().call_later(0.2, slow.set)
        await slow.wait()


async def test_one_owner_leaves_turns_to_another() -> None:
    taken = Turns(4, 2)
    async with taken.turn("ann"), taken.turn("ann"), asyncio.timeout(1):
        async with taken.turn("bob"), taken.turn("bob"):
            pass


async def test_where_everybody_is_one_owner_he_has_all_turns() -> None:
    taken = Turns(4, 2)
    taken.share_freely()
    async with asyncio.timeout(1), taken.turn("a"), taken.turn("a"), taken.turn("a"):
        pass


async def test_who_leaves_the_line_is_forgotten() -> None:
    taken = Turns(1, 1)
    async with taken.turn("ann"):
        for _ in range(100):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0), taken.turn("ann"):
                    raise AssertionError("a second turn")
    async with asyncio.timeout(1), taken.turn("ann"):
        pass
