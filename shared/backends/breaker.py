"""The breaker of one backend: whether the backend may be asked now. Pure.

    closed      the backend is asked. Strikes count its failures; enough of them open the breaker.
    open        the backend cools down, and is not asked before `until_ms`.
    half-open   one request, the trial, is under way. Its first token closes the breaker, and its
                failure opens it again for longer.

Invariants: there is at most one trial at a time, and an open breaker always becomes due again.
All times are Redis's clock, ms. Workers share the record. This module knows no Redis, no
requests and no backends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

State = Literal["closed", "open", "half_open"]

# Of a failure. A first token takes one strike off, so strikes do not grow while at most a third of
# the calls fail.
STRIKE = 2
STRIKES_MAX = 6  # opens the breaker: three failures in a row
STRIKES_LAST_MS = 60_000  # older strikes do not count
STEADY_MS = 60_000  # closed for so long: the next cool-down is short again


@dataclass(frozen=True, slots=True)
class Times:
    """The pauses of a breaker, ms.

    Attributes:
        cool_first: the longest first cool-down. It doubles with each failed trial.
        cool_max: the longest cool-down.
        trial: a trial without a first token counts as failed after this time.
        silent: for so much longer a backend whose probes fail is not asked.
    """

    cool_first: int = 2_000
    cool_max: int = 15_000
    trial: int = 15_000
    silent: int = 15_000

    @classmethod
    def of(cls, cool_max_s: float) -> Times:
        """Return the times for a longest cool-down, which bounds all of them."""
        most = round(cool_max_s * 1000)
        return cls(min(cls().cool_first, most), most, most, most)


class Breaker(msgspec.Struct, frozen=True, omit_defaults=True):
    """The record of one backend.

    Attributes:
        strikes: of the failures that the first tokens since then have not made up for.
        struck_ms: when the last failure was noted.
        since_ms: when the present state began; 0: the backend has always been closed.
        until_ms: open: no trial before this time. Half-open: until then the trial has to succeed.
        opens: how often the breaker opened without a steady time between.
        reason: of the last opening: one sentence without addresses.
        is_away: the last failures say that the server is away, and nothing about a request.
        is_silent: the last probe failed.
        limited_until_ms: the vendor's rate limit has nothing left before this time.
    """

    state: State = "closed"
    strikes: int = 0
    struck_ms: int = 0
    since_ms: int = 0
    until_ms: int = 0
    opens: int = 0
    reason: str = ""
    is_away: bool = False
    is_silent: bool = False
    limited_until_ms: int = 0

    def is_due(self, now_ms: int, times: Times) -> bool:
        """Whether to ask for a trial: the cool-down is over, or the time of the last trial."""
        wait_ms = times.silent if self.is_silent and self.state == "open" else 0
        return self.state != "closed" and now_ms >= self.until_ms + wait_ms

    def struck(
        self, now_ms: int, times: Times, *, reason: str, is_away: bool, jitter: float
    ) -> Breaker:
        """Return the breaker after the failure of a call that was no trial.

        Args:
            jitter: from 0 to 1, random.
        """
        if self.state != "closed":
            return self  # the call had begun before
        is_old = now_ms - self.struck_ms > STRIKES_LAST_MS
        strikes = (0 if is_old else self.strikes) + STRIKE
        noted = msgspec.structs.replace(self, strikes=strikes, struck_ms=now_ms)
        if strikes < STRIKES_MAX:
            return noted
        return noted.opened(now_ms, times, reason=reason, is_away=is_away, jitter=jitter)

    def opened(
        self, now_ms: int, times: Times, *, reason: str, is_away: bool, jitter: float
    ) -> Breaker:
        """Return the open breaker: after too many strikes, a failed trial or a fault of the set-up.

        The cool-down has full jitter: any time up to a bound, which doubles with each opening.
        """
        is_steady = self.state == "closed" and now_ms - self.since_ms > STEADY_MS
        opens = 1 if is_steady else self.opens + 1
        bound_ms = min(times.cool_first * 2 ** min(opens - 1, 20), times.cool_max)
        return msgspec.structs.replace(
            self, state="open", strikes=0, since_ms=now_ms, opens=opens, reason=reason,
            is_away=is_away, until_ms=now_ms + max(1, round(bound_ms * jitter)),
        )  # fmt: skip

    def answered(self, now_ms: int) -> Breaker:
        """Return the breaker after a first token."""
        if self.state == "closed":
            if not self.strikes:
                return self
            return msgspec.structs.replace(self, strikes=self.strikes - 1)
        return msgspec.structs.replace(
            self, state="closed", strikes=0, since_ms=now_ms, until_ms=0, is_silent=False
        )

    def tried(self, now_ms: int, times: Times) -> Breaker | None:
        """Return the half-open breaker, for a caller that sends the trial; None: not due."""
        if self.state != "open" or not self.is_due(now_ms, times):
            return None
        return msgspec.structs.replace(
            self, state="half_open", since_ms=now_ms, until_ms=now_ms + times.trial, is_silent=False
        )

    def returned(self, now_ms: int) -> Breaker:
        """Return the open breaker after a trial that was not used: the next may come at once."""
        if self.state != "half_open":
            return self
        return msgspec.structs.replace(self, state="open", since_ms=now_ms, until_ms=now_ms)

    def expired(self, now_ms: int, times: Times, *, jitter: float) -> Breaker:
        """Return the breaker, open again if its trial gave no first token in time."""
        if self.state != "half_open" or now_ms < self.until_ms:
            return self
        return self.opened(
            now_ms, times, reason="the trial got no first token in time", is_away=self.is_away,
            jitter=jitter,
        )  # fmt: skip

    def probed(
        self, now_ms: int, times: Times, *, is_up: bool, reason: str, jitter: float
    ) -> Breaker:
        """Return the breaker after a probe.

        A server that gives no list and then gives one is back, so the cool-down ends. A server that
        gives its list all the time and fails its requests is not believed.
        """
        if self.state == "closed":
            if is_up:
                return self
            return self.struck(now_ms, times, reason=reason, is_away=True, jitter=jitter)
        if self.state == "half_open" or is_up != self.is_silent:
            return self
        until_ms = min(self.until_ms, now_ms) if is_up else self.until_ms
        return msgspec.structs.replace(self, is_silent=not is_up, until_ms=until_ms)

    def limited(self, until_ms: int) -> Breaker:
        """Return the breaker of a backend whose vendor gives nothing before `until_ms`."""
        if until_ms <= self.limited_until_ms:
            return self
        return msgspec.structs.replace(self, limited_until_ms=until_ms)
