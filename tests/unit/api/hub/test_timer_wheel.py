"""Each item leaves the wheel once, on time, or never if it was removed."""

from __future__ import annotations

from api.hub.timer_wheel import TimerWheel


def test_each_item_leaves_the_wheel_once_and_not_early() -> None:
    wheel: TimerWheel[str] = TimerWheel(0.25)
    wheel.put("b", 1.1)
    wheel.put("a", 1.0)
    assert wheel.pop_due(0.99) == []
    assert wheel.pop_due(1.0) == ["a"]
    assert wheel.pop_due(1.26) == ["b"]
    assert wheel.pop_due(99) == []
    assert len(wheel) == 0


def test_a_removed_item_leaves_the_wheel_never_and_a_moved_one_at_its_new_time() -> None:
    wheel: TimerWheel[str] = TimerWheel(0.25)
    wheel.put("a", 1.0)
    wheel.put("b", 1.0)
    wheel.put("b", 2.0)
    wheel.remove("a")
    wheel.remove("absent")

    assert len(wheel) == 1
    assert wheel.pop_due(1.5) == []
    assert wheel.pop_due(2.0) == ["b"]
    assert wheel.pop_due(99) == []
