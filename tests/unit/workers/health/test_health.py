"""The health of the backends in one worker, with a clock that the test moves."""

from __future__ import annotations

import pytest

from shared.backends.breaker import Times
from shared.config.model_route import RouteRules
from shared.config.models import Model
from shared.errors import BackendError
from workers.backends.contract import SetUpFault
from workers.health.health import SILENT_S, UNPROVEN_MAX, BackendHealth

AWAY = BackendError("upstream_error", "it is away", is_outage=True)
BROKEN = BackendError("upstream_error", "it answered 500")
REFUSED = BackendError("upstream_refused", "too long", retryable=False)
NO_KEY = SetUpFault("upstream_refused", "401", "set the key", retryable=False)


MODELS = {
    "a": Model(name="a"),
    "b": Model(name="b"),
    "a-route": Model(name="a-route", backend="route", route=RouteRules(backends=("a", "b"))),
}


class Clock:
    now_s = 1_000.0

    def seconds(self) -> float:
        return self.now_s

    def ms(self) -> int:
        return round(self.now_s * 1000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> BackendHealth:
    times = Times(cool_first=2_000, cool_max=8_000, trial=8_000, silent=8_000)
    return BackendHealth(MODELS, times, clock=clock.seconds, now_ms=clock.ms, chance=lambda: 1.0)


def ask(health: BackendHealth, error: BackendError | None = None, name: str = "a") -> bool:
    """Make one whole call, if the backend allows it; return whether it did."""
    if not health.allows(name):
        return False
    call = health.start(name)
    if error is None:
        call.first_token()
    call.close(error, tokens=3)
    return True


@pytest.mark.parametrize("error", [AWAY, BROKEN], ids=["away", "broken"])
def test_three_failures_in_a_row_open_the_breaker_of_this_backend_alone(
    health: BackendHealth, error: BackendError
) -> None:
    assert [ask(health, error) for _ in range(5)] == [True, True, True, False, False]
    assert health.state("a") == "open"
    assert health.state("b") == "closed"
    assert ask(health, name="b")


def test_a_failure_between_answers_leaves_the_backend_in_use(health: BackendHealth) -> None:
    for _ in range(20):
        assert ask(health, BROKEN)
        assert ask(health)
        assert ask(health)
    assert health.state("a") in ("closed", "suspect")


def test_a_backend_that_fails_more_than_half_of_its_calls_is_opened(health: BackendHealth) -> None:
    made = [ask(health, error) for error in [BROKEN, None] * 20]
    assert not all(made)


def test_refused_requests_and_cancelled_answers_say_nothing_about_the_backend(
    health: BackendHealth,
) -> None:
    for _ in range(10):
        assert ask(health, REFUSED)
        call = health.start("a")
        call.close(is_abandoned=True)
    assert health.state("a") == "closed"


def test_a_wrong_key_opens_the_breaker_at_once(health: BackendHealth) -> None:
    assert ask(health, NO_KEY)
    assert health.state("a") == "open"


def test_one_trial_follows_the_cool_down_and_its_first_token_closes_the_breaker(
    health: BackendHealth, clock: Clock
) -> None:
    for _ in range(3):
        ask(health, AWAY)
    clock.now_s += 1.9
    assert not health.allows("a")
    clock.now_s += 0.2
    assert health.allows("a")
    trial = health.start("a")
    assert health.state("a") == "half_open"
    assert not health.allows("a")
    trial.first_token()
    assert health.state("a") == "closed"
    assert health.allows("a")


def test_each_failed_trial_doubles_the_cool_down_up_to_its_bound(
    health: BackendHealth, clock: Clock
) -> None:
    for _ in range(3):
        ask(health, AWAY)
    waits = []
    for _ in range(5):
        waits.append(health.wait_s("a"))
        clock.now_s += health.wait_s("a")
        assert ask(health, AWAY)
    assert waits == [2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_burst_at_a_backend_that_never_answered_is_small(health: BackendHealth) -> None:
    made = 0
    while health.allows("a"):
        health.start("a")
        made += 1
    assert made == UNPROVEN_MAX
    assert health.busy("a") == UNPROVEN_MAX


def test_a_burst_at_a_backend_that_has_answered_is_not_bounded(health: BackendHealth) -> None:
    ask(health)
    for _ in range(50):
        assert health.allows("a")
        health.start("a")
    assert health.busy("a") == 50


def test_a_backend_that_has_fallen_silent_gets_few_further_requests(
    health: BackendHealth, clock: Clock
) -> None:
    ask(health)
    for _ in range(50):
        health.start("a")
    clock.now_s += SILENT_S - 1
    assert health.allows("a")
    clock.now_s += 2
    assert not health.allows("a")
    health.start("a").first_token()
    assert health.allows("a")


def test_a_limited_backend_is_not_asked_before_the_vendor_allows_it(
    health: BackendHealth, clock: Clock
) -> None:
    limited = BackendError("upstream_error", "slow down", retry_after_s=7.0)
    limited.status = 429
    assert ask(health, limited)
    assert health.state("a") == "limited"
    assert health.wait_s("a") == 7.0
    clock.now_s += 6.9
    assert not health.allows("a")
    clock.now_s += 0.2
    assert health.allows("a")


def test_the_first_token_and_the_rate_are_measured(health: BackendHealth, clock: Clock) -> None:
    call = health.start("a")
    clock.now_s += 0.5
    call.first_token()
    clock.now_s += 2.0
    call.close(tokens=101)
    assert health.first_token_s("a") == pytest.approx(0.5, rel=0.1)
    assert health.tokens_per_s("a") == pytest.approx(50.0, rel=0.1)
    assert health.busy("a") == 0


def test_a_route_is_no_backend_and_always_allowed(health: BackendHealth) -> None:
    assert health.allows("a-route")
    health.start("a-route").close(AWAY)
    assert health.state("a-route") == "closed"
