"""Turns: sinks and rows alternate, and a run ends after its slice of loop time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.hub.pump import WRITES_PER_TURN, Broadcast, Pump, Write


class FakeSink:
    """Does `work` and notes its name, in each of its turns."""

    def __init__(self, turns: int, order: list[str], name: str, work: Callable[[], None]) -> None:
        self.is_queued = False
        self.turns, self.order, self.name, self.work = turns, order, name, work

    def pump(self, now: float) -> bool:
        self.order.append(self.name)
        self.work()
        self.turns -= 1
        return self.turns > 0


class FakeRow:
    """Writes its name to each of its readers, in each of its turns."""

    def __init__(self, turns: int, name: bytes, readers: list[Write]) -> None:
        self.is_queued = False
        self.members = readers
        self.turns, self.name = turns, name

    def take(self, now: float, due: list[Broadcast]) -> bool:
        due.append((tuple(self.members), self.name))
        self.turns -= 1
        return self.turns > 0


def test_sinks_take_turns_and_a_run_ends_after_its_slice() -> None:
    time, order, calls = [0.0], [], []

    def work() -> None:
        time[0] += 0.001

    pump = Pump(lambda: time[0], calls.append, slice_s=0.0025)
    sinks = [FakeSink(2, order, name, work) for name in "abc"]
    for sink in [*sinks, *sinks]:
        pump.wake(sink)
    runs = 0
    while calls:
        calls.pop()()
        runs += 1
    assert order == list("abcabc")
    assert runs == 2


def test_a_row_whose_log_is_folded_ends_the_batch() -> None:
    """A fold step takes as long as many writes, so a sink gets its turn after each of them."""
    order: list[Any] = []
    calls: list[Callable[[], None]] = []

    class FoldingRow(FakeRow):
        def take(self, now: float, due: list[Broadcast]) -> bool:
            order.append(self.name)
            self.turns -= 1
            return self.turns > 0

    pump = Pump(lambda: 0.0, calls.append)
    pump.wake(FakeSink(3, order, "sink", lambda: None))
    pump.wake_row(FoldingRow(4, b"row", []))
    while calls:
        calls.pop()()
    assert order == [b"row", "sink", b"row", "sink", b"row", "sink", b"row"]


def test_rows_write_a_bounded_batch_between_two_sinks() -> None:
    written: list[Any] = []
    calls: list[Callable[[], None]] = []
    pump = Pump(lambda: 0.0, calls.append)
    half = WRITES_PER_TURN // 2
    pump.wake(FakeSink(1, written, "sink", lambda: None))
    for row in [FakeRow(2, name, [written.append] * half) for name in (b"a", b"b", b"c")]:
        pump.wake_row(row)
        pump.wake_row(row)
    while calls:
        calls.pop()()

    batches = [written[n : n + half] for n in range(0, 2 * half, half)]
    assert batches == [[b"a"] * half, [b"b"] * half]
    assert written[2 * half] == "sink", "a sink gets its turn after one batch of rows"
    assert all(written.count(name) == 2 * half for name in (b"a", b"b", b"c"))
