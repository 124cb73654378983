"""The health of the backends as one worker sees it: the interface for runs and for routes.

Every answer comes from memory, so a question delays no prompt. What a worker notes is shared in the
background. A backend is a table of the models file; the models of the list of `[models."*"]` share
one. Names that are no backend (routes) are always allowed, and nothing is noted about them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from shared.backends.breaker import Breaker, Times
from shared.backends.notes import Note, apply
from shared.config.models import ANY
from shared.errors import BackendError
from workers.health.measures import TOKENS_MIN, Measures, percentile
from workers.health.outcome import FAILURES, Outcome, outcome_of

HealthState = Literal["closed", "suspect", "open", "half_open", "limited"]
# Calls of one worker that may be under way at a backend that has not answered any: a server that
# takes requests and fails them must not get a whole burst before the first failure is known.
UNPROVEN_MAX = 8


@dataclass(slots=True)
class Call:
    """One request to a backend, from `BackendHealth.start` to `close`."""

    health: BackendHealth
    name: str
    began_s: float
    is_trial: bool
    first_token_s: float | None = None  # after `began_s`
    is_closed: bool = False

    def first_token(self) -> None:
        """Note the first token of the answer: the backend works."""
        if self.first_token_s is None and not self.is_closed:
            self.first_token_s = self.health.clock() - self.began_s
            self.health.note_first_token(self)

    def close(
        self, error: BackendError | None = None, *, tokens: int = 0, is_abandoned: bool = False
    ) -> None:
        """Note the end of the call.

        Args:
            error: why the call failed; None: it did not.
            tokens: pieces of text that came; for the rate.
            is_abandoned: the caller closed the call before the backend had ended.
        """
        if not self.is_closed:
            outcome = Outcome.ABANDONED if is_abandoned and error is None else outcome_of(error)
            self.health.note(self.name, outcome, call=self, error=error, tokens=tokens)
            self.is_closed = True


class BackendHealth:
    """The health of the backends of one worker.

    Args:
        names: of the tables of the models file that are backends.
        clock: seconds, monotonic.
        now_ms: Redis's clock, ms.
        chance: returns a number from 0 to 1.
    """

    def __init__(
        self,
        names: Iterable[str],
        times: Times | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.clock = clock
        self.now_ms = now_ms
        self._times = times or Times()
        self._chance = chance
        self._breakers = {name: Breaker() for name in names}
        self._measures = {name: Measures() for name in self._breakers}
        self._proven: set[str] = set()  # a first token came, and no failure since
        self._trials: set[str] = set()  # this worker may send the trial of these backends

    def backend_of(self, name: str) -> str:
        """Return the table that serves a model; empty: it is no backend."""
        if name in self._breakers:
            return name
        return ANY if ANY in self._breakers else ""

    # Questions

    def state(self, name: str) -> HealthState:
        """Return the state of a backend. `suspect`: closed, and its last calls failed."""
        breaker = self._breakers.get(self.backend_of(name), Breaker())
        if breaker.state == "closed" and breaker.limited_until_ms > self.now_ms():
            return "limited"
        if breaker.state == "closed" and breaker.strikes:
            return "suspect"
        return breaker.state

    def allows(self, name: str) -> bool:
        """Whether a request may go to a backend now. Takes the trial of a half-open backend.

        A caller that got True calls `start` next, without waiting in between.
        """
        backend = self.backend_of(name)
        if not backend:
            return True
        breaker = self._breakers[backend]
        if breaker.limited_until_ms > self.now_ms():
            return False
        if breaker.state == "closed":
            return backend in self._proven or self._measures[backend].unanswered < UNPROVEN_MAX
        return self._take_trial(backend)

    def wait_s(self, name: str) -> float:
        """Return the seconds until a backend may be asked again; 0: now."""
        breaker = self._breakers.get(self.backend_of(name), Breaker())
        until_ms = breaker.limited_until_ms
        if breaker.state != "closed":
            until_ms = max(until_ms, breaker.until_ms)
        return max(0, until_ms - self.now_ms()) / 1000

    def busy(self, name: str) -> int:
        """Return the calls in flight at a backend, over all workers as last seen."""
        measures = self._measures.get(self.backend_of(name))
        return measures.in_flight if measures else 0

    def first_token_s(self, name: str) -> float | None:
        """Return the median time to the first token in the last minutes; None: not known."""
        measures = self._measures.get(self.backend_of(name))
        return percentile(measures.first_token.recent(self.clock()), 0.5) if measures else None

    def tokens_per_s(self, name: str) -> float | None:
        """Return the median rate of an answer in the last minutes; None: not known."""
        measures = self._measures.get(self.backend_of(name))
        return percentile(measures.rate.recent(self.clock()), 0.5) if measures else None

    async def take_slot(self, name: str, generation_id: str) -> bool:
        """Take one of the `slots` of a backend for a generation, until the run ends.

        Returns at once for a backend without `slots`, and for a slot that the generation has.
        """
        return True

    # Notes

    def start(self, name: str) -> Call:
        """Note that a request goes to a backend; the caller closes the call."""
        backend = self.backend_of(name)
        is_trial = backend in self._trials
        self._trials.discard(backend)
        if backend:
            measures = self._measures[backend]
            measures.in_flight += 1
            measures.unanswered += 1
            measures.calls += 1
        return Call(self, backend, self.clock(), is_trial)

    def note_first_token(self, call: Call) -> None:
        """See `Call.first_token`."""
        if not call.name:
            return
        measures = self._measures[call.name]
        measures.unanswered -= 1
        measures.first_token.add(self.clock(), call.first_token_s or 0.0)
        self._proven.add(call.name)
        breaker = self._breakers[call.name]
        if breaker.strikes or breaker.state != "closed":
            self._note(call.name, Note("answered"))

    def note(
        self,
        name: str,
        outcome: Outcome,
        *,
        call: Call | None = None,
        error: BackendError | None = None,
        tokens: int = 0,
    ) -> None:
        """Note how a call ended; routes and runs use `Call.close`."""
        backend = self.backend_of(name) if name else ""
        if not backend:
            return
        is_trial = call is not None and call.is_trial
        if call is not None:
            self._note_times(backend, call, tokens)
        if outcome is Outcome.OK and (call is None or call.first_token_s is None):
            self._note(backend, Note("answered"))  # an answer without text
        if outcome is Outcome.REFUSED and is_trial:
            self._note(backend, Note("answered"))  # the server works, and refused the request
        if outcome is Outcome.LIMITED:
            wait_s = (error.retry_after_s if error else None) or 1.0
            until_ms = self.now_ms() + round(wait_s * 1000)
            self._note(backend, Note("limited", until_ms=until_ms))
        if outcome in FAILURES:
            self._measures[backend].failures[outcome.value] += 1
            self._proven.discard(backend)
            is_final = is_trial or outcome is Outcome.UNUSABLE
            reason = error.message if error else outcome.value
            is_away = outcome is Outcome.AWAY
            self._note(backend, Note("opened" if is_final else "struck", reason, is_away))

    def _note_times(self, backend: str, call: Call, tokens: int) -> None:
        measures = self._measures[backend]
        measures.in_flight -= 1
        if call.first_token_s is None:
            measures.unanswered -= 1
            return
        took_s = self.clock() - call.began_s - call.first_token_s
        if tokens >= TOKENS_MIN and took_s > 0:
            measures.rate.add(self.clock(), (tokens - 1) / took_s)

    def _note(self, backend: str, note: Note) -> None:
        breaker, now_ms = self._breakers[backend], self.now_ms()
        self._breakers[backend] = apply(breaker, [note], now_ms, self._times, jitter=self._chance())

    def _take_trial(self, backend: str) -> bool:
        now_ms, times = self.now_ms(), self._times
        breaker = self._breakers[backend].expired(now_ms, times, jitter=self._chance())
        self._breakers[backend] = breaker
        if (tried := breaker.tried(now_ms, times)) is None:
            return False
        self._breakers[backend] = tried
        self._trials.add(backend)
        return True
