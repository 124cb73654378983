"""When a reader whose write waits is too slow."""

from __future__ import annotations

from api.readers.slow_reader import BlockedWrite


def is_slow(blockage: BlockedWrite, now: float, *, buffer: int, backlog: int) -> bool:
    return blockage.is_too_slow(
        now, unacknowledged_bytes=buffer, backlog_bytes=backlog, bytes_max=1_000
    )


def test_a_reader_is_slow_after_a_second_without_progress_and_with_too_much_unsent() -> None:
    blockage = BlockedWrite(0, 100)
    assert not is_slow(blockage, 0.9, buffer=100, backlog=2_000)
    assert not is_slow(blockage, 1.0, buffer=100, backlog=1_000)
    assert is_slow(blockage, 1.0, buffer=100, backlog=1_001)


def test_progress_restarts_the_second() -> None:
    blockage = BlockedWrite(0, 100)
    assert not is_slow(blockage, 0.9, buffer=99, backlog=9_999)
    assert not is_slow(blockage, 1.8, buffer=99, backlog=9_999)
    assert is_slow(blockage, 2.0, buffer=99, backlog=9_999)


def test_a_minute_without_progress_is_slow_with_nothing_unsent() -> None:
    assert is_slow(BlockedWrite(0, 0), 60, buffer=0, backlog=0)
