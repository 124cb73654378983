"""The limits on transfers: their number, duration and rate, and the drain."""

from __future__ import annotations

import asyncio

import pytest

from api.edge import transfer_limit, transfer_rate
from api.edge.transfer_limit import TransferLimit
from shared.errors import RequestError


async def test_at_most_turns_max_transfers_run() -> None:
    turns, running_max, running = TransferLimit(2, 2), 0, 0

    async def transfer() -> None:
        nonlocal running_max, running
        async with turns.turn("ann"):
            running += 1
            running_max = max(running_max, running)
            for _ in range(5):
                await asyncio.sleep(0)
            running -= 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(7):
            tasks.create_task(transfer())
    assert (running_max, running) == (2, 0)


async def test_a_transfer_without_a_turn_in_time_is_429(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_limit, "TRANSFER_TURN_WAIT_S", 0.02)
    turns = TransferLimit(1, 1)
    async with turns.turn("ann"):
        with pytest.raises(RequestError) as caught:
            async with turns.turn("ann"):
                raise AssertionError("a second turn")
    assert (caught.value.code, caught.value.retryable) == ("too_many_transfers", True)
    assert caught.value.retry_after_s
    async with turns.turn("ann"):
        pass


async def test_a_transfer_longer_than_transfer_s_max_is_408(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer_limit, "TRANSFER_S_MAX", 0.02)
    with pytest.raises(RequestError) as caught:
        async with TransferLimit(9, 9).turn("ann"):
            await asyncio.Event().wait()
    assert caught.value.status == 408


async def test_a_drain_waits_for_a_transfer_that_cleans_up_after_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer_limit, "TRANSFER_S_MAX", 0.02)
    turns, cleans_up, may_end = TransferLimit(9, 9), asyncio.Event(), asyncio.Event()

    async def transfer() -> None:
        with pytest.raises(RequestError):
            async with turns.turn("ann"):
                try:
                    await asyncio.Event().wait()
                finally:
                    cleans_up.set()
                    await may_end.wait()

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(transfer())
        await cleans_up.wait()
        draining = tasks.create_task(turns.drain(1))
        await asyncio.sleep(0)
        assert not draining.done()
        may_end.set()


async def test_a_drain_waits_for_transfers_and_ends_the_slow_ones() -> None:
    turns, may_end, codes = TransferLimit(9, 9), asyncio.Event(), []

    async def transfer(until: asyncio.Event) -> None:
        try:
            async with turns.turn("ann"):
                await until.wait()
            codes.append("complete")
        except RequestError as exc:
            codes.append(exc.code)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(transfer(may_end))
        tasks.create_task(transfer(asyncio.Event()))
        await asyncio.sleep(0)
        draining = tasks.create_task(turns.drain(0.05))
        await asyncio.sleep(0)
        may_end.set()
        async with asyncio.timeout(5):
            await draining
        assert codes == ["complete", "draining"]
    with pytest.raises(RequestError):
        async with turns.turn("ann"):
            raise AssertionError("a turn after the drain")
    await turns.drain(5)


async def test_a_drain_without_transfers_ends_at_once() -> None:
    async with asyncio.timeout(1):
        await TransferLimit(9, 9).drain(60)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RATE_WINDOW_S", 0.05), ("CONTENDED_RATE_WINDOW_S", 0.05)):
        monkeypatch.setattr(transfer_rate, name, value)
    monkeypatch.setattr(transfer_limit, "RATE_CHECK_S", 0.01)


@pytest.mark.usefixtures("quick")
async def test_a_slow_peer_loses_its_turn() -> None:
    with pytest.raises(RequestError) as caught:
        async with TransferLimit(9, 9).turn("ann") as turn, turn.waiting():
            await asyncio.Event().wait()
    assert caught.value.code == "request_timeout"
    assert "4096 bytes a second" in caught.value.message


async def test_bytes_at_the_moment_of_the_limit_do_not_end_the_checks(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for those bytes ends before its limit, and the next wait has a limit, too."""
    monkeypatch.setattr(transfer_limit, "RATE_CHECK_S", 10.0)
    async with TransferLimit(1, 1).turn("ann") as turn:
        turn._waited_s = transfer_rate.RATE_WINDOW_S
        monkeypatch.setattr(transfer_limit, "RATE_CHECK_S", 0.01)
        async with turn.waiting():
            turn._check_rate()  # slow: the limit ends now, but the byte has arrived
        with pytest.raises(RequestError) as caught:
            async with asyncio.timeout(2), turn.waiting():
                await asyncio.Event().wait()

    assert caught.value.status == 408


@pytest.mark.usefixtures("quick")
async def test_a_fast_peer_keeps_its_turn() -> None:
    moved = 0
    async with asyncio.timeout(5), TransferLimit(9, 9).turn("ann") as turn:
        turn.moved = lambda: moved
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 0.2
        while loop.time() < until_s:
            async with turn.waiting():
                await asyncio.sleep(0)
            moved += 4_096


@pytest.mark.usefixtures("quick")
async def test_time_without_waiting_for_the_peer_does_not_count() -> None:
    """For example while the store is slow."""
    async with TransferLimit(9, 9).turn("ann") as turn:
        async with turn.waiting():
            pass
        slow = asyncio.Event()
        asyncio.get_running_loop().call_later(0.2, slow.set)
        await slow.wait()


async def test_one_owner_leaves_turns_to_another() -> None:
    turns = TransferLimit(4, 2)
    async with turns.turn("ann"), turns.turn("ann"), asyncio.timeout(1):
        async with turns.turn("bob"), turns.turn("bob"):
            pass


async def test_with_share_freely_one_owner_gets_all_turns() -> None:
    turns = TransferLimit(4, 2)
    turns.share_freely()
    async with asyncio.timeout(1), turns.turn("a"), turns.turn("a"), turns.turn("a"):
        pass


async def test_a_cancelled_wait_leaves_the_queue() -> None:
    turns = TransferLimit(1, 1)
    async with turns.turn("ann"):
        for _ in range(100):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0), turns.turn("ann"):
                    raise AssertionError("a second turn")
    async with asyncio.timeout(1), turns.turn("ann"):
        pass
