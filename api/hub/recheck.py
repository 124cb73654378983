"""Decides what a node does about an unfinished log that has been silent.

A lost last frame is shown by no later frame. So the node reads the top of each silent log once a
second (api/hub/upkeep.py) and compares it with the top of its copy. The same answer shows that a
generation is gone, and that no worker holds it.

    status of the generation                         decision
    absent                                           NOTHING; SEAL after 10 s of absence
    sealed                                           LOST
    ended, and the log has expired                   EXPIRED
    any other, its top is not the copy's top         REPAIR
    any other, the same top, no worker holds it      REQUEUE, once in 30 s
    any other, the same top                          NOTHING

Pure: the result depends on the answers and on the time that the caller passes.
Source: docs/architecture.md, "Nodes and readers" and "Lost and deleted".
"""

from __future__ import annotations

import enum

from shared.log.ids import START, EventId
from shared.log.records import ENDED, RESTORE_WITHIN_S, Top
from shared.queue.lanes import NEVER_BEGAN_S

ABSENT_STEP_S_MAX = 3.0  # a longer pause between two answers counts as this much absence
REQUEUE_PAUSE_S = 30.0  # between two requeues of one generation by this node


class RecheckDecision(enum.Enum):
    """The calls that the recheck makes on the node."""

    NOTHING = "nothing"
    REPAIR = "repair"  # read the log from the copy's top
    SEAL = "seal"  # mark the absent generation as gone for good
    LOST = "lost"  # end all readers: another node has sealed the generation
    EXPIRED = "expired"  # break all readers off: the end cannot be read any more
    REQUEUE = "requeue"  # put the generation back on the queue


class Recheck:
    """The memory of one generation's rechecks.

    Args:
        lease_s: lease of a worker. A generation is abandoned when its lease expired more than two
            leases ago.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._absent_s = 0.0
        self._is_absent = False
        self._decided_at = 0.0
        self._requeued_at_ms = 0

    @property
    def is_absent(self) -> bool:
        """Whether the generation was absent at the last answer."""
        return self._is_absent

    def decide(self, top: Top, own_top: EventId, now: float) -> RecheckDecision:
        """Take one answer of Redis.

        Args:
            top: the answer.
            own_top: id of the last entry of the copy.
            now: loop time, s.
        """
        self._note_absence(top.status is None, now)
        if top.status is None:
            is_due = self._absent_s >= RESTORE_WITHIN_S
            return RecheckDecision.SEAL if is_due else RecheckDecision.NOTHING
        if top.status == "sealed":
            return RecheckDecision.LOST
        if top.status in ENDED and top.id is None:
            return RecheckDecision.EXPIRED
        if (top.id or START) != own_top:
            return RecheckDecision.REPAIR
        return self._decide_requeue(top)

    def _note_absence(self, is_absent: bool, now: float) -> None:
        if not is_absent:
            self._absent_s = 0.0
        elif self._is_absent:
            self._absent_s += min(now - self._decided_at, ABSENT_STEP_S_MAX)
        self._is_absent = is_absent
        self._decided_at = now

    def _decide_requeue(self, top: Top) -> RecheckDecision:
        if top.status in ENDED or top.now_ms - self._requeued_at_ms < REQUEUE_PAUSE_S * 1000:
            return RecheckDecision.NOTHING
        if top.waiting_since_ms:
            is_abandoned = top.now_ms - top.waiting_since_ms > NEVER_BEGAN_S * 1000
        else:
            idle_ms = top.now_ms - top.lease_ms
            is_abandoned = top.lease_ms > 0 and idle_ms > 2 * self._lease_s * 1000
        if not is_abandoned:
            return RecheckDecision.NOTHING
        self._requeued_at_ms = top.now_ms
        return RecheckDecision.REQUEUE
