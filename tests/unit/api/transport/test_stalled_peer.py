"""A peer that takes nothing is broken off; one that takes little by little is not."""

from __future__ import annotations

from typing import Any

from api.transport.stalled_peer import LOOKS, Stall
from tests.support.wait import until


class Wire:
    """A transport; `takes` is what its peer takes between two looks."""

    def __init__(self, left: int, takes: int) -> None:
        self.left, self.takes = left, takes
        self.looks = 0
        self.is_aborted = False

    def get_write_buffer_size(self) -> int:
        self.looks += 1
        self.left = max(0, self.left - self.takes)
        return self.left

    def get_extra_info(self, name: str) -> None:
        return None

    def abort(self) -> None:
        self.is_aborted = True


def stall_of(wire: Any) -> Stall:
    return Stall(wire)


async def test_a_peer_that_takes_nothing_is_broken_off() -> None:
    wire = Wire(100, 0)
    stall = stall_of(wire)
    stall.watch(0.05)

    await until(lambda: wire.is_aborted, 2)
    assert wire.looks == LOOKS + 1
    assert not stall.is_watching


async def test_a_slow_download_is_no_stall() -> None:
    wire = Wire(1_000, 1)
    stall = stall_of(wire)
    stall.watch(0.02)

    await until(lambda: wire.looks > 5 * LOOKS, 5)
    assert not wire.is_aborted
    stall.stop()


async def test_one_that_stops_later_is_broken_off_after_all() -> None:
    wire = Wire(10, 1)
    stall_of(wire).watch(0.02)

    await until(lambda: wire.is_aborted, 5)
    assert wire.left == 0
    assert wire.looks >= 10 + LOOKS


async def test_it_watches_no_longer_than_it_is_told_to() -> None:
    wire = Wire(100, 0)
    stall = stall_of(wire)
    stall.watch(0.01)
    stall.end()
    stall.watch(0.01)

    assert not stall.is_watching
