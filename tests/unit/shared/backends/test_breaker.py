"""The breaker of a backend: pure, with times that the test chooses, and in any interleaving."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shared.backends.breaker import STEADY_MS, STRIKES_LAST_MS, Breaker, Times
from shared.backends.notes import Note, apply

TIMES = Times(cool_first=1_000, cool_max=8_000, trial=8_000, silent=8_000)
START_MS = 1_000_000


def after(breaker: Breaker, *kinds: str, now_ms: int = START_MS, jitter: float = 1.0) -> Breaker:
    notes = [Note(kind, "reason", is_away=True) for kind in kinds]  # type: ignore[arg-type]
    return apply(breaker, notes, now_ms, TIMES, jitter=jitter)


def opened(jitter: float = 1.0) -> Breaker:
    return after(Breaker(), "struck", "struck", "struck", jitter=jitter)


def test_old_failures_do_not_add_up() -> None:
    breaker = after(Breaker(), "struck", "struck")
    assert after(breaker, "struck", now_ms=START_MS + STRIKES_LAST_MS + 1).state == "closed"
    assert after(breaker, "struck", now_ms=START_MS + STRIKES_LAST_MS - 1).state == "open"


def test_the_cool_down_is_a_random_part_of_its_bound() -> None:
    assert opened(0.0).until_ms == START_MS + 1
    assert opened(0.5).until_ms == START_MS + 500
    assert opened(1.0).until_ms == START_MS + 1_000


def test_a_backend_that_opens_again_soon_cools_down_for_longer() -> None:
    def opens_again(closed_ms: int) -> int:
        now_ms = opened().until_ms
        tried = opened().tried(now_ms, TIMES)
        assert tried is not None
        closed = tried.answered(now_ms)
        again = after(closed, "struck", "struck", "struck", now_ms=now_ms + closed_ms)
        return again.until_ms - now_ms - closed_ms

    assert opens_again(1_000) == 2_000
    assert opens_again(STEADY_MS + 1) == 1_000


def test_failures_of_calls_that_had_begun_before_do_not_end_the_trial() -> None:
    tried = opened().tried(START_MS + 1_000, TIMES)
    assert tried is not None
    assert after(tried, "struck", "struck", "struck", now_ms=START_MS + 1_001) == tried


def test_a_server_whose_probe_fails_and_then_succeeds_is_tried_at_once() -> None:
    silent = after(opened(), "probe_down", now_ms=START_MS + 10)
    assert silent.tried(START_MS + 1_000, TIMES) is None
    back = after(silent, "probe_up", now_ms=START_MS + 20)
    assert back.tried(START_MS + 20, TIMES) is not None


def test_a_probe_that_always_succeeds_does_not_shorten_the_cool_down() -> None:
    breaker = after(opened(), "probe_up", now_ms=START_MS + 10)
    assert breaker.tried(START_MS + 999, TIMES) is None
    assert breaker.tried(START_MS + 1_000, TIMES) is not None


def test_a_backend_whose_probes_fail_for_no_good_reason_is_asked_all_the_same() -> None:
    silent = after(opened(), "probe_down")
    assert silent.tried(silent.until_ms + TIMES.silent, TIMES) is not None


def test_a_trial_without_a_first_token_counts_as_failed_in_time() -> None:
    tried = opened().tried(START_MS + 1_000, TIMES)
    assert tried is not None
    assert tried.expired(START_MS + 8_999, TIMES, jitter=1.0) == tried
    again = tried.expired(START_MS + 9_000, TIMES, jitter=1.0)
    assert (again.state, again.opens) == ("open", 2)


def test_a_trial_that_was_not_used_may_be_taken_at_once() -> None:
    tried = opened().tried(START_MS + 1_000, TIMES)
    assert tried is not None
    returned = after(tried, "returned", now_ms=START_MS + 1_001)
    assert returned.opens == tried.opens
    assert returned.tried(START_MS + 1_001, TIMES) is not None


def test_a_record_is_the_same_after_it_was_stored() -> None:
    breaker = opened()
    assert msgspec.json.decode(msgspec.json.encode(breaker), type=Breaker) == breaker
    assert msgspec.json.encode(Breaker()) == b"{}"


class SharedBreaker(RuleBasedStateMachine):
    """Workers that note, claim and die in any order, on one record."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now_ms = START_MS
        self.trials: list[int] = []  # of the trials that have not ended: when they began

    def note(self, kind: str, jitter: float) -> None:
        self.breaker = after(self.breaker, kind, now_ms=self.now_ms, jitter=jitter)

    @rule(pause_ms=st.integers(0, 20_000))
    def wait(self, pause_ms: int) -> None:
        self.now_ms += pause_ms

    @rule(kind=st.sampled_from(["struck", "probe_up", "probe_down"]), jitter=st.floats(0, 1))
    def something_happens(self, kind: str, jitter: float) -> None:
        self.note(kind, jitter)

    @rule(jitter=st.floats(0, 1))
    def a_worker_asks_for_the_trial(self, jitter: float) -> None:
        present = self.breaker.expired(self.now_ms, TIMES, jitter=jitter)
        tried = present.tried(self.now_ms, TIMES)
        self.breaker = tried or present
        if tried is not None:
            young = [at for at in self.trials if at > self.now_ms - TIMES.trial]
            assert not young, "two trials at a time"
            self.trials = [self.now_ms]

    @precondition(lambda self: self.trials)
    @rule(kind=st.sampled_from(["answered", "opened", "returned"]), jitter=st.floats(0, 1))
    def a_trial_ends(self, kind: str, jitter: float) -> None:
        self.trials.pop()
        self.note(kind, jitter)

    @precondition(lambda self: self.trials)
    @rule()
    def the_worker_of_a_trial_dies(self) -> None:
        pass  # its trial stays in the list until its time is over

    @invariant()
    def it_is_asked_again_within_the_bound(self) -> None:
        """Whatever happened: whoever asks again and again gets a trial in 45 s or less."""
        breaker, now_ms = self.breaker, self.now_ms
        until_ms = now_ms + TIMES.trial + TIMES.cool_max + TIMES.silent
        while breaker.state != "closed":
            breaker = breaker.expired(now_ms, TIMES, jitter=1.0)
            if breaker.tried(now_ms, TIMES) is not None:
                return
            now_ms += 500
            assert now_ms <= until_ms + 500


TestSharedBreaker = SharedBreaker.TestCase
TestSharedBreaker.settings = settings(max_examples=60, stateful_step_count=30)


def test_the_bounds_of_the_usual_times_are_45_seconds_in_all() -> None:
    times = Times.of(15.0)
    assert times.trial + times.cool_max + times.silent <= 45_000
