"""Whether the live connection still hears: a message to oneself, through the path that frames take.

A connection can be open, answer PING and be deaf all the same (a demoted master, a wedged proxy).
So a node publishes to a channel of its own and waits for it. Knows no clock, does no I/O.
"""

from __future__ import annotations

INTERVAL_S = 5.0
ANSWER_S = 2.0


class Probe:
    """The state of the probing.

    Args:
        interval_s: between two probes.
        answer_s: for one to come back, before the connection is declared deaf.
    """

    def __init__(self, *, interval_s: float = INTERVAL_S, answer_s: float = ANSWER_S) -> None:
        self._interval_s = interval_s
        self._answer_s = answer_s
        self._sent_at: float | None = None  # the one under way
        self._next_at = 0.0
        self._number = 0
        self.is_heard = False  # the last one that was due came back
        self.lost = 0

    def due(self, now: float) -> bytes | None:
        """Return what to publish now, or None."""
        if self._sent_at is not None or now < self._next_at:
            return None
        self._number += 1
        self._sent_at = now
        return b"%d" % self._number

    def unsent(self, now: float) -> None:
        """It could not be published: says nothing about hearing; try again a little later."""
        self.is_heard = False
        self._sent_at = None
        self._next_at = now + self._answer_s / 2

    def heard(self, payload: bytes, now: float) -> None:
        """A message came on the probe's channel."""
        if payload == b"%d" % self._number and self._sent_at is not None:
            self.is_heard = True
            self._sent_at = None
            self._next_at = now + self._interval_s

    def is_deaf(self, now: float) -> bool:
        """Whether to give the connection up; True once for each lost probe."""
        if self._sent_at is None or now - self._sent_at < self._answer_s:
            return False
        self.lost += 1
        self.restart(now)
        return True

    def restart(self, now: float) -> None:
        """The connection is another one: it has to be heard anew, at once."""
        self.is_heard = False
        self._sent_at = None
        self._next_at = now
