"""A connection is aborted when its peer takes no bytes, but not when its peer is slow."""

from __future__ import annotations

from typing import Any

from api.transport.stalled_peer import CHECKS_PER_STALL, StallTimer
from tests.support.wait import until


class FakeTransport:
    """A transport whose peer takes `takes` bytes between two checks."""

    def __init__(self, left: int, takes: int) -> None:
        self.left, self.takes = left, takes
        self.checks = 0
        self.is_aborted = False

    def get_write_buffer_size(self) -> int:
        self.checks += 1
        self.left = max(0, self.left - self.takes)
        return self.left

    def get_extra_info(self, name: str) -> None:
        return None

    def abort(self) -> None:
        self.is_aborted = True


def stall_of(transport: Any) -> StallTimer:
    return StallTimer(transport)


async def test_a_connection_whose_peer_takes_nothing_is_aborted() -> None:
    transport = FakeTransport(100, 0)
    stall = stall_of(transport)
    stall.watch(0.05)

    await until(lambda: transport.is_aborted, 2)
    assert transport.checks == CHECKS_PER_STALL + 1
    assert not stall.is_watching


async def test_a_slow_download_is_not_a_stall() -> None:
    transport = FakeTransport(1_000, 1)
    stall = stall_of(transport)
    stall.watch(0.02)

    await until(lambda: transport.checks > 5 * CHECKS_PER_STALL, 5)
    assert not transport.is_aborted
    stall.stop()


async def test_a_peer_that_stops_later_is_aborted() -> None:
    transport = FakeTransport(10, 1)
    stall_of(transport).watch(0.02)

    await until(lambda: transport.is_aborted, 5)
    assert transport.left == 0
    assert transport.checks >= 10 + CHECKS_PER_STALL


async def test_after_end_nothing_is_watched() -> None:
    transport = FakeTransport(100, 0)
    stall = stall_of(transport)
    stall.watch(0.01)
    stall.end()
    stall.watch(0.01)

    assert not stall.is_watching
