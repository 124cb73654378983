"""The tail recheck, decided: what a node does about an unfinished log that has been silent.

No later message shows that the last one was lost, so the tops are compared every second. The same
answers tell of a generation that is gone, and of one that nobody looks after.
Pure: given the answers and the time, returns what to do. Source: docs/architecture.md, "Nodes and
readers" and "Lost and deleted".
"""

from __future__ import annotations

import enum

from shared.log.ids import START, EventId
from shared.log.records import ENDED, Top

ABSENT_S = 10.0  # absent this long, while Redis answered: sealed
STEP_S_MAX = 3.0  # between two answers; a longer silence is not counted as absence
REQUEUE_S = 30.0  # queued without a begin, and between two requeues


class Verdict(enum.Enum):
    NOTHING = "nothing"
    REPAIR = "repair"  # the log has another top
    SEAL = "seal"  # absent for too long
    LOST = "lost"  # sealed: over for good
    GONE = "gone"  # ended, and its log has expired before we read the end
    REQUEUE = "requeue"  # nobody looks after it


class Recheck:
    """What is remembered of one generation from answer to answer."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._absent_s = 0.0
        self._is_absent = False
        self._asked_at = 0.0
        self._requeued_at_ms = 0

    @property
    def is_absent(self) -> bool:
        return self._is_absent

    def judge(self, top: Top, own_top: EventId, now: float) -> Verdict:
        """Take one answer of Redis.

        Args:
            own_top: of the copy.
            now: loop time, s.
        """
        self._note_absence(top.status is None, now)
        if top.status is None:
            return Verdict.SEAL if self._absent_s >= ABSENT_S else Verdict.NOTHING
        if top.status == "sealed":
            return Verdict.LOST
        if top.status in ENDED and top.id is None:
            return Verdict.GONE
        if (top.id or START) != own_top:
            return Verdict.REPAIR
        return self._requeue(top)

    def _note_absence(self, is_absent: bool, now: float) -> None:
        if not is_absent:
            self._absent_s = 0.0
        elif self._is_absent:
            self._absent_s += min(now - self._asked_at, STEP_S_MAX)
        self._is_absent = is_absent
        self._asked_at = now

    def _requeue(self, top: Top) -> Verdict:
        if top.status in ENDED or top.now_ms - self._requeued_at_ms < REQUEUE_S * 1000:
            return Verdict.NOTHING
        if top.waiting_since_ms:
            is_forgotten = top.now_ms - top.waiting_since_ms > REQUEUE_S * 1000
        else:
            idle_ms = top.now_ms - top.lease_ms
            is_forgotten = top.lease_ms > 0 and idle_ms > 2 * self._lease_s * 1000
        if not is_forgotten:
            return Verdict.NOTHING
        self._requeued_at_ms = top.now_ms
        return Verdict.REQUEUE
