"""Detects a live connection that is open but receives nothing.

A connection can be open, answer PING and still deliver no messages (a demoted master, a hanging
proxy). So the node publishes to a channel of its own, and must receive that message on the live
connection within `PROBE_ANSWER_S`:

    next_payload() ──published──▶ receive(payload)   the connection is heard; next probe in 5 s
                               └▶ expire()           no answer in 2 s: the connection is deaf

Has no clock (callers pass the loop time in seconds as `now`), does no I/O.
"""

from __future__ import annotations

PROBE_INTERVAL_S = 5.0  # between the answer to one probe and the next probe
PROBE_ANSWER_S = 2.0  # for a probe to arrive; then the connection counts as deaf


class Probe:
    """The state of the probing.

    Args:
        interval_s: pause after an answered probe.
        answer_s: time for a probe to arrive.

    Attributes:
        is_heard: the latest probe that was due has arrived.
        lost: probes that did not arrive in time.
    """

    def __init__(
        self, *, interval_s: float = PROBE_INTERVAL_S, answer_s: float = PROBE_ANSWER_S
    ) -> None:
        self._interval_s = interval_s
        self._answer_s = answer_s
        self._sent_at: float | None = None  # time of the unanswered probe; None: there is none
        self._next_at = 0.0
        self._number = 0
        self.is_heard = False
        self.lost = 0

    def next_payload(self, now: float) -> bytes | None:
        """Return the payload to publish now; None: no probe is due, or one is unanswered."""
        if self._sent_at is not None or now < self._next_at:
            return None
        self._number += 1
        self._sent_at = now
        return b"%d" % self._number

    def note_publish_failed(self, now: float) -> None:
        """Try again in half of `answer_s`. The failed PUBLISH says nothing about receiving."""
        self.is_heard = False
        self._sent_at = None
        self._next_at = now + self._answer_s / 2

    def receive(self, payload: bytes, now: float) -> None:
        """Take a message of the probe's channel; ignore all but the latest probe."""
        if payload == b"%d" % self._number and self._sent_at is not None:
            self.is_heard = True
            self._sent_at = None
            self._next_at = now + self._interval_s

    def expire(self, now: float) -> bool:
        """Return True once for each probe that did not arrive in time; then start anew."""
        if self._sent_at is None or now - self._sent_at < self._answer_s:
            return False
        self.lost += 1
        self.restart(now)
        return True

    def restart(self, now: float) -> None:
        """Forget the state of the former connection; the next probe is due at once."""
        self.is_heard = False
        self._sent_at = None
        self._next_at = now
