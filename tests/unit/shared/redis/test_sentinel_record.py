"""Which view of the sentinels counts: the highest epoch, and never a master that was just left."""

from __future__ import annotations

import pytest

from shared.config.redis_hosts import HostPort
from shared.redis.sentinel.record import EPOCH_WAIT_S, SWITCH_WAIT_S, MasterRecord, View
from shared.redis.sentinel.session import left_master

A, B = ("a", 6379), ("b", 6379)


def view(epoch: int, master: HostPort) -> View:
    return View(
        sentinel=("s", 26379),
        master=master,
        epoch=epoch,
        replicas=1,
        others=2,
        quorum=2,
        down_after_ms=500,
        failover_timeout_ms=3_000,
    )


def known(epoch: int, master: HostPort) -> MasterRecord:
    record = MasterRecord()
    assert record.choose([view(epoch, master)], 0.0) == master
    return record


@pytest.mark.parametrize(
    ("views", "chosen"),
    [
        ([], None),
        ([(0, A)], A),
        ([(0, A), (1, B), (0, A)], B),
        ([(1, B), (0, A), (0, A)], B),
        ([(7, A), (7, A)], A),
    ],
    ids=["no answer", "one answer", "the last is behind", "most are behind", "all agree"],
)
def test_the_view_with_the_highest_epoch_counts(
    views: list[tuple[int, HostPort]], chosen: HostPort | None
) -> None:
    record = MasterRecord()

    assert record.choose([view(*each) for each in views], 0.0) == chosen
    assert record.master == chosen


def test_an_older_view_than_the_recorded_one_names_no_master() -> None:
    record = known(3, B)

    assert record.choose([view(2, A)], 1.0) is None
    assert record.master == B, "what is known stays known"
    assert record.choose([view(2, A), view(3, B)], 2.0) == B


def test_sentinels_that_were_set_up_anew_are_believed_after_a_while() -> None:
    """Their epochs begin at 0 again."""
    record = known(3, B)

    assert record.choose([view(0, A)], 10.0) is None
    assert record.choose([view(0, A)], 10.0 + EPOCH_WAIT_S - 0.1) is None
    assert record.choose([view(0, A)], 10.0 + EPOCH_WAIT_S) == A
    assert record.epoch == 0


def test_a_newer_view_in_between_begins_that_wait_anew() -> None:
    record = known(3, B)
    record.choose([view(0, A)], 10.0)
    record.choose([view(3, B)], 11.0)

    assert record.choose([view(0, A)], 10.0 + EPOCH_WAIT_S) is None


def test_after_a_notice_the_left_master_is_not_named_under_the_same_epoch() -> None:
    record = known(3, A)

    assert record.note_switch(A, 10.0)
    assert record.master is None
    assert record.choose([view(3, A)], 10.1) is None
    assert record.choose([view(3, A), view(4, B)], 10.2) == B


def test_a_notice_that_no_sentinel_confirms_is_forgotten() -> None:
    record = known(3, A)
    record.note_switch(A, 10.0)

    assert record.choose([view(3, A)], 10.0 + SWITCH_WAIT_S - 0.1) is None
    assert record.choose([view(3, A)], 10.0 + SWITCH_WAIT_S) == A


def test_a_master_that_was_left_may_become_the_master_again_under_a_higher_epoch() -> None:
    record = known(3, A)
    record.note_switch(A, 10.0)

    assert record.choose([view(5, A)], 10.1) == A


def test_a_late_notice_about_an_earlier_master_changes_nothing() -> None:
    record = known(4, B)

    assert not record.note_switch(A, 10.0)
    assert record.master == B


@pytest.mark.parametrize(
    ("channel", "text", "left"),
    [
        (b"+switch-master", "mine 10.0.0.1 6379 10.0.0.2 6380", ("10.0.0.1", 6379)),
        (b"+switch-master", "other 10.0.0.1 6379 10.0.0.2 6380", None),
        (b"+switch-master", "mine", None),
        (b"+switch-master", "mine host port host port", None),
        (b"+promoted-slave", "slave b:2 b 2 @ mine a 1", ("a", 1)),
        (b"+promoted-slave", "slave b:2 b 2 @ other a 1", None),
        (b"+promoted-slave", "slave b:2 b 2", None),
        (b"+promoted-slave", "slave ::1:2 ::1 2 @ mine 2001:db8::1 1", ("2001:db8::1", 1)),
    ],
)
def test_what_a_notice_says(channel: bytes, text: str, left: HostPort | None) -> None:
    assert left_master([b"message", channel, text.encode()], "mine") == left
