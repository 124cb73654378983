"""What a node does after it has compared the top of a silent log with its copy."""

from __future__ import annotations

import pytest

from api.hub.recheck import Recheck, RecheckDecision
from shared.log.ids import START, EventId
from shared.log.records import Top


def top(status: str | None = "running", seq: int = 3, **changes: int) -> Top:
    """Return an answer of Redis; no `status`: absent, no `seq`: no log."""
    values = {"lease_ms": 50_000, "waiting_since_ms": 0, "now_ms": 50_000, **changes}
    return Top(status=status, id=EventId(1, seq) if seq else None, **values)


@pytest.mark.parametrize(
    ("answer", "decision"),
    [
        (top(), RecheckDecision.NOTHING),
        (top(seq=4), RecheckDecision.REPAIR),
        (top(seq=2), RecheckDecision.REPAIR),
        (top(seq=0), RecheckDecision.REPAIR),
        (top("completed", seq=4), RecheckDecision.REPAIR),
        (top("completed", seq=0), RecheckDecision.EXPIRED),
        (top("sealed", seq=0), RecheckDecision.LOST),
        (top(None, seq=0), RecheckDecision.NOTHING),
        (top(now_ms=56_000), RecheckDecision.NOTHING),
        (top(now_ms=56_001), RecheckDecision.REQUEUE),
        (top(lease_ms=0, waiting_since_ms=20_000), RecheckDecision.NOTHING),
        (top(lease_ms=0, waiting_since_ms=19_999), RecheckDecision.REQUEUE),
    ],
)
def test_one_answer_decides(answer: Top, decision: RecheckDecision) -> None:
    assert Recheck(lease_s=3).decide(answer, EventId(1, 3), now=0) is decision


def test_a_generation_is_sealed_after_ten_seconds_of_absence() -> None:
    recheck = Recheck(lease_s=3)
    decisions = [recheck.decide(top(None, seq=0), START, now) for now in range(11)]
    assert decisions == [RecheckDecision.NOTHING] * 10 + [RecheckDecision.SEAL]


def test_a_pause_between_two_answers_counts_as_three_seconds_of_absence_at_most() -> None:
    recheck = Recheck(lease_s=3)
    for now in (0, 1, 60, 61):
        assert recheck.decide(top(None, seq=0), START, now) is RecheckDecision.NOTHING


def test_a_generation_that_comes_back_starts_its_absence_anew() -> None:
    recheck = Recheck(lease_s=3)
    for now in (*range(9), 9.5, *range(10, 19)):
        answer = top("queued", seq=0) if now == 9.5 else top(None, seq=0)
        assert recheck.decide(answer, START, now) is RecheckDecision.NOTHING


def test_an_abandoned_generation_is_requeued_every_thirty_seconds() -> None:
    recheck = Recheck(lease_s=1)
    decisions = {
        now_s: recheck.decide(top(now_ms=now_s * 1_000), EventId(1, 3), now_s)
        for now_s in range(100, 180)
    }
    assert [
        now_s for now_s, decision in decisions.items() if decision is RecheckDecision.REQUEUE
    ] == [100, 130, 160]
