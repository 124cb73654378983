"""The health of the backends as one worker sees it: the interface for runs and for routes.

Every answer comes from memory, so a question delays no prompt; only `admit` asks Redis, and only
for a backend whose cool-down is over. What a worker notes is shared in the background
(workers/health/sharing.py). A backend is a table of the models file; the models of the list of
`[models."*"]` share one. A table with `route` is no backend: it is always allowed, and nothing is
noted about it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from shared.backends.board import Busy, Report
from shared.backends.breaker import Breaker, Times
from shared.backends.notes import Note, apply
from shared.config.models import ANY, Model, ModelTable
from shared.errors import BackendError
from workers.health.call import Call
from workers.health.contracts import Sharer, SlotTaker
from workers.health.measures import TOKENS_MIN, Measures
from workers.health.outcome import FAILURES, Outcome

HealthState = Literal["closed", "suspect", "open", "half_open", "limited"]
# Calls of one worker that may be under way at a backend that has not answered any: a server that
# takes requests and fails them must not get a whole burst before the first failure is known.
UNPROVEN_MAX = 8
SILENT_S = 15.0  # without a first token from a backend that has worked
LIMITED_S = 1.0  # a backend that says 429 and not for how long is left alone for so long


class BackendHealth:
    """The health of the backends of one worker.

    Args:
        models: the tables of the models file.
        clock: seconds, monotonic.
        now_ms: Redis's clock, ms, as far as this process knows it.
        chance: returns a number from 0 to 1.

    Attributes:
        sharer: None: the health is of this worker alone.
        slot_taker: None: no backend has slots.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        times: Times | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        chance: Callable[[], float] = random.random,
    ) -> None:
        tables = models.tables if isinstance(models, ModelTable) else models
        self.clock = clock
        self.now_ms = now_ms
        self.times = times or Times()
        self.chance = chance
        self.sharer: Sharer | None = None
        self.slot_taker: SlotTaker | None = None
        self._routes = {name for name, model in tables.items() if model.route is not None}
        names = [name for name in tables if name not in self._routes]
        self._breakers = {name: Breaker() for name in names}
        self._measures = {name: Measures(clock()) for name in names}
        self._slots = {name: tables[name].slots for name in names}
        self._others: Mapping[str, Sequence[Busy]] = {}  # of the other workers, by backend
        self._proven: set[str] = set()  # a first token came, and no failure since
        # Backends whose trial this worker may send -> the generation that took it; "": none yet.
        self._trials: dict[str, str] = {}

    @property
    def backends(self) -> Sequence[str]:
        """The names of all backends."""
        return list(self._breakers)

    def backend_of(self, name: str) -> str:
        """Return the table that serves a model; empty: it is no backend."""
        if name in self._breakers:
            return name
        return ANY if ANY in self._breakers and name not in self._routes else ""

    # Questions

    def breaker(self, name: str) -> Breaker:
        """Return the breaker of a backend, as this worker last saw it."""
        return self._breakers.get(self.backend_of(name)) or Breaker()

    def state(self, name: str) -> HealthState:
        """Return the state of a backend. `suspect`: closed, and its last calls failed."""
        breaker = self.breaker(name)
        if breaker.state == "closed" and self.is_limited(name):
            return "limited"
        if breaker.state == "closed" and breaker.strikes:
            return "suspect"
        return breaker.state

    def is_limited(self, name: str) -> bool:
        """Whether the vendor's rate limit has nothing left now."""
        return self.breaker(name).limited_until_ms > self.now_ms()

    def allows(self, name: str) -> bool:
        """Whether a request may go to a backend now, without asking Redis.

        A caller that got True calls `start` next, without waiting in between. Where workers share
        the health, `allows` gives the trial of a half-open backend only after it was asked before:
        use `admit` where the caller can wait.
        """
        backend = self.backend_of(name)
        if not backend or self._may_go(backend):
            return True
        if self.sharer is not None and self._is_due(backend):
            self.sharer.want_trial(backend)
        return False

    def _may_go(self, backend: str, generation_id: str = "") -> bool:
        breaker = self._breakers[backend]
        if self.is_limited(backend):
            return False
        if breaker.state == "closed":
            return self._has_room(backend)
        if backend in self._trials:
            return self._trials[backend] in ("", generation_id)
        return self.sharer is None and self._take_trial(backend)

    def _has_room(self, backend: str) -> bool:
        """Whether a closed backend may get a further request.

        A backend that has never answered, or that has fallen silent with requests under way, gets
        few of them: the silence of a frozen server is seen long before its time limits.
        """
        measures = self._measures[backend]
        if measures.unanswered < UNPROVEN_MAX:
            return True
        silent_s = self.clock() - measures.answered_s
        return backend in self._proven and silent_s < max(SILENT_S, 3 * measures.last_first_s)

    async def admit(self, name: str, generation_id: str, *, takes_slot: bool = True) -> bool:
        """As `allows`; take the trial of a backend whose cool-down is over, and one of its slots.

        Only the trial and a slot are a round trip to Redis: one generation of all workers gets the
        trial. It calls `start` or `return_trial`.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        if not (backend := self.backend_of(name)):
            return True
        is_allowed = self._may_go(backend, generation_id)
        if not (is_allowed or self._is_due(backend)):
            return False
        if takes_slot and not await self.take_slot(name, generation_id):
            return False
        if self.sharer is not None and self._breakers[backend].state != "closed":
            if not self._may_go(backend, generation_id):  # also after the wait for the slot
                is_allowed = self._is_due(backend) and await self.sharer.claim_trial(backend)
        if is_allowed and backend in self._trials:
            is_allowed = self._may_go(backend, generation_id)
            self._trials[backend] = self._trials[backend] or generation_id
        return is_allowed

    def _is_due(self, backend: str) -> bool:
        return not self.is_limited(backend) and self._breakers[backend].is_due(
            self.now_ms(), self.times
        )

    def wait_s(self, name: str) -> float:
        """Return the seconds until a backend may be asked again; 0: now."""
        breaker = self.breaker(name)
        until_ms = breaker.limited_until_ms
        if breaker.state != "closed":
            until_ms = max(until_ms, breaker.until_ms)
        return max(0, until_ms - self.now_ms()) / 1000

    def busy(self, name: str) -> int:
        """Return the calls in flight at a backend, over all workers as last seen."""
        backend = self.backend_of(name)
        if not backend:
            return 0
        others = sum(busy.in_flight for busy in self._others.get(backend, ()))
        return self._measures[backend].in_flight + others

    def first_token_s(self, name: str) -> float | None:
        """Return the median time to the first token in the last minutes; None: not known."""
        return self._median(name, lambda busy: busy.first_token_s)

    def tokens_per_s(self, name: str) -> float | None:
        """Return the median rate of an answer in the last minutes; None: not known."""
        return self._median(name, lambda busy: busy.tokens_per_s)

    def _median(self, name: str, value_of: Callable[[Busy], float]) -> float | None:
        """Return the mean of the medians of those workers that measured."""
        if not (backend := self.backend_of(name)):
            return None
        own = self._measures[backend].busy(self.clock())
        values = [value_of(busy) for busy in (own, *self._others.get(backend, ()))]
        known = [value for value in values if value]
        return sum(known) / len(known) if known else None

    async def take_slot(self, name: str, generation_id: str) -> bool:
        """Take one of the `slots` of a backend for a generation, until its run ends.

        Returns at once for a backend without `slots`, and for a slot that the generation has.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        if self.slot_taker is None:
            return True
        return await self.slot_taker.take(self.backend_of(name), generation_id)

    # Notes of calls

    def start(self, name: str, generation_id: str = "", *, keeps_slot: bool = True) -> Call:
        """Note that a request goes to a backend; the caller closes the call.

        Args:
            generation_id: as for `admit`.
            keeps_slot: the slot is given back when the run ends, and not when the call ends.
        """
        backend = self.backend_of(name)
        is_trial = self._trials.get(backend) in ("", generation_id)
        if is_trial:
            del self._trials[backend]
        if backend:
            measures = self._measures[backend]
            measures.in_flight += 1
            measures.unanswered += 1
            measures.calls += 1
            measures.called_s = self.clock()
        returned_for = "" if keeps_slot else generation_id
        return Call(self, backend, self.clock(), is_trial, returned_for)

    def note_first_token(self, call: Call) -> None:
        """See `Call.first_token`."""
        if not call.backend:
            return
        measures = self._measures[call.backend]
        measures.unanswered -= 1
        measures.note_first_token(self.clock(), call.first_token_s or 0.0)
        self._note_answer(call.backend)

    def note_end(
        self, call: Call, outcome: Outcome, error: BackendError | None, tokens: int
    ) -> None:
        """See `Call.close`."""
        backend = call.backend
        if not backend:
            return
        if call.returned_for and self.slot_taker is not None:
            self.slot_taker.done(backend, call.returned_for)
        measures = self._measures[backend]
        measures.in_flight -= 1
        if call.first_token_s is None:
            measures.unanswered -= 1
        else:
            took_s = self.clock() - call.began_s - call.first_token_s
            if tokens >= TOKENS_MIN and took_s > 0:
                measures.rate.add(self.clock(), (tokens - 1) / took_s)
        if outcome in FAILURES or outcome is Outcome.LIMITED:
            measures.note_failure(outcome.value, error.status if error else None)
        is_answered = outcome in (Outcome.OK, Outcome.REFUSED) and call.first_token_s is None
        if is_answered or (outcome is Outcome.LIMITED and call.is_trial):
            self._note_answer(backend)  # an answer without text, or a working server's refusal
        elif outcome is Outcome.ABANDONED and call.is_trial and call.first_token_s is None:
            self._note(backend, Note("returned"))
        if outcome is Outcome.LIMITED:
            wait_s = (error.retry_after_s if error else None) or LIMITED_S
            self.note_limit(backend, self.now_ms() + round(wait_s * 1000))
        if outcome in FAILURES and error is not None:
            self._proven.discard(backend)
            is_final = call.is_trial or outcome is Outcome.UNUSABLE
            is_away = outcome is Outcome.AWAY
            self._note(backend, Note("opened" if is_final else "struck", error.message, is_away))

    def note_limit(self, backend: str, until_ms: int) -> None:
        """Note that the vendor gives nothing before this time, Redis's clock."""
        if until_ms > self.now_ms():
            self._note(backend, Note("limited", until_ms=until_ms))

    def note_left(self, backend: str, left: Mapping[str, int]) -> None:
        """Note what the vendor says is left of its limits."""
        self._measures[backend].left.update(left)

    def note_probe(self, backend: str, *, is_up: bool, reason: str) -> None:
        """Note whether a probe reached a backend."""
        self._note(backend, Note("probe_up" if is_up else "probe_down", reason))

    def return_trial(self, name: str, generation_id: str = "") -> None:
        """Give back a trial that was taken and not used."""
        backend = self.backend_of(name)
        if self._trials.get(backend) in ("", generation_id):
            del self._trials[backend]
            self._note(backend, Note("returned"))

    def _note_answer(self, backend: str) -> None:
        self._proven.add(backend)
        breaker = self._breakers[backend]
        if breaker.strikes or breaker.state != "closed":
            self._note(backend, Note("answered"))

    def _note(self, backend: str, note: Note) -> None:
        breaker, now_ms = self._breakers[backend], self.now_ms()
        self._breakers[backend] = apply(breaker, [note], now_ms, self.times, jitter=self.chance())
        if self.sharer is not None:
            self.sharer.note(backend, note)

    def _take_trial(self, backend: str) -> bool:
        now_ms = self.now_ms()
        breaker = self._breakers[backend].expired(now_ms, self.times, jitter=self.chance())
        self._breakers[backend] = breaker
        if (tried := breaker.tried(now_ms, self.times)) is None:
            return False
        self.grant_trial(backend, tried)
        return True

    # For the sharing

    def grant_trial(self, backend: str, breaker: Breaker) -> None:
        """Let the next call be the trial; `breaker` is half-open."""
        self._breakers[backend] = breaker
        self._trials[backend] = ""

    def learn_breaker(self, backend: str, breaker: Breaker) -> None:
        """Take over what the workers share."""
        if breaker.state != "half_open":
            self._trials.pop(backend, None)
        self._breakers[backend] = breaker

    def learn_others(self, others: Mapping[str, Sequence[Busy]]) -> None:
        """Take over what the other workers told, by backend."""
        self._others = others

    def own_busy(self) -> dict[str, Busy]:
        """Return what the other workers need, of the backends that this worker has asked."""
        now_s = self.clock()
        asked = {name: m for name, m in self._measures.items() if m.calls}
        return {name: measures.busy(now_s) for name, measures in asked.items()}

    def own_reports(self) -> dict[str, Report]:
        """Return what operators see."""
        return {name: m.report(self._slots[name]) for name, m in self._measures.items()}

    def idle_s(self, backend: str) -> float:
        """Return how long this worker has not asked a backend, s."""
        return self.clock() - self._measures[backend].called_s
