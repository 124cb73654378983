"""Which backend of a route may go on behind a log, in which order, and after which failures."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shared.config.models import Model, member_model
from shared.errors import BackendError, Refusal
from shared.log.events import AnyEvent, Reasoning, Reset, Start, Token, Upstream, encode
from shared.log.ids import EventId
from shared.log.records import Entry
from shared.log.request import Request
from tests.support.worker_harness import ScriptedBackend
from workers.backends.contract import SetUpFault
from workers.routing.candidates import (
    Candidate,
    Plans,
    ask_order,
    deciding_failure,
    others_may_answer,
)
from workers.takeover.continuation import AttemptPlan, writer_of
from workers.takeover.verdicts import NO_FORM, Form

HOLDS = Form("prefix", True)
FRESH = AttemptPlan("", False)
BEHIND = AttemptPlan("Hel", False)
ANEW = AttemptPlan("", True)


class ServerWithBackground(ScriptedBackend):
    async def attach(self, upstream_id: str, *, seed: str) -> Any: ...

    async def cancel(self, upstream_id: str) -> None: ...


def log_of(*events: AnyEvent) -> list[Entry]:
    return [(EventId(1, seq), encode(event)) for seq, event in enumerate(events, 1)]


def plan(*events: AnyEvent, form: Form = HOLDS, name: str = "a", **params: Any) -> AttemptPlan:
    plans = Plans(log_of(*events), Request([], params))
    return plans.candidate(Model(name=name), ScriptedBackend(), form).plan


def names(candidates: list[Candidate]) -> list[str]:
    return [candidate.name for candidate in candidates]


# Plans


def test_an_empty_log_needs_no_prefix_and_no_reset() -> None:
    assert plan() == FRESH


def test_text_is_continued_where_a_form_holds_and_begins_anew_elsewhere() -> None:
    events = (Start(1, "m", "a"), Token("Hel"))

    assert plan(*events) == BEHIND
    assert plan(*events, form=NO_FORM) == ANEW


def test_reasoning_begins_anew() -> None:
    assert plan(Start(1, "m", "a"), Reasoning("hm")) == ANEW


def test_structured_output_begins_anew() -> None:
    assert plan(Start(1, "m", "a"), Token("{"), response_format={"type": "json_object"}) == ANEW


def test_an_answer_in_the_background_goes_on_at_its_own_server_only() -> None:
    plans = Plans(log_of(Start(1, "m", "a"), Upstream("resp_1")), Request([]))
    backend = ServerWithBackground()

    own, other = (plans.candidate(Model(name=name), backend, NO_FORM) for name in "ab")

    assert own.plan.upstream_id == "resp_1"
    assert other.plan == FRESH


def test_the_writer_is_the_backend_of_the_last_start() -> None:
    assert writer_of([]) == ""
    assert writer_of(log_of(Start(1, "m"), Token("hi"))) == ""
    events = (Start(1, "m", "a"), Token("Hel"), Start(1, "m", "b"), Reset("restarted"), Token("x"))
    assert writer_of(log_of(*events)) == "b"


@pytest.mark.parametrize(
    ("route", "member", "holds"),
    [
        ("auto", "auto", "auto"),
        ("auto", "continue", "continue"),
        ("auto", "restart", "restart"),
        ("auto", "fail", "restart"),
        ("continue", "auto", "continue"),
        ("continue", "restart", "restart"),
        ("restart", "continue", "restart"),
        ("fail", "continue", "restart"),
    ],
)
def test_the_takeover_rule_of_a_backend_in_a_route(route: str, member: str, holds: str) -> None:
    model = member_model(
        Model(name="m", backend="route", on_takeover=route), Model(name="a", on_takeover=member)
    )

    assert model.on_takeover == holds


# The order


def order(*candidates: tuple[str, AttemptPlan], may_reset: bool = True, **given: Any) -> list[str]:
    asked, writer = given.get("asked", {}), given.get("writer", "")
    made = [Candidate(name, plan, NO_FORM) for name, plan in candidates]
    return names(ask_order(made, asked, writer=writer, may_reset=may_reset))


def test_a_new_answer_is_asked_of_each_backend_once() -> None:
    assert order(("a", FRESH), ("b", FRESH)) == ["a", "b"]
    assert order(("a", FRESH), ("b", FRESH), asked={"a": 1}) == ["b"]
    assert order(("a", FRESH), ("b", FRESH), asked={"a": 1, "b": 1}) == []


def test_a_backend_that_goes_on_is_asked_twice_and_the_others_before() -> None:
    candidates = (("a", BEHIND), ("b", BEHIND))

    assert order(*candidates, asked={"a": 1}) == ["b", "a"]
    assert order(*candidates, asked={"a": 1, "b": 1}) == ["a", "b"]
    assert order(*candidates, asked={"a": 2, "b": 2}) == []


def test_a_reset_is_the_last_choice() -> None:
    candidates = (("a", ANEW), ("b", BEHIND), ("c", ANEW))

    assert order(*candidates) == ["b"]
    assert order(*candidates, asked={"b": 2, "c": 1}) == ["a"]


def test_no_backend_is_asked_where_no_reset_is_allowed() -> None:
    assert order(("a", ANEW), ("b", ANEW), may_reset=False) == []


def test_the_writer_of_the_answer_goes_on_first() -> None:
    assert order(("a", BEHIND), ("b", BEHIND), writer="b") == ["b", "a"]
    assert order(("a", FRESH), ("b", FRESH), writer="b") == ["a", "b"]


# Failures


def refused(status: int | None, code: str | None = None) -> BackendError:
    upstream = Refusal("no", status, code)
    return BackendError("upstream_refused", "no", retryable=False, upstream=upstream)


@pytest.mark.parametrize(
    ("error", "may"),
    [
        (BackendError("upstream_error", "500"), True),
        (BackendError("upstream_timeout", "silent"), True),
        (SetUpFault("upstream_refused", "401", "key", retryable=False), True),
        (refused(404), True),
        (refused(429, "insufficient_quota"), True),
        (refused(400, "context_length_exceeded"), True),
        (refused(400), False),
        (refused(413), False),
        (refused(422), False),
        (refused(400, "content_filter"), False),
        (BackendError("answer_too_large", "long", retryable=False), False),
        (BackendError("owner_full", "full", retryable=False), False),
    ],
    ids=lambda value: str(value) if isinstance(value, bool) else cast(BackendError, value).message,
)
def test_whether_another_backend_may_answer(error: BackendError, may: bool) -> None:
    assert others_may_answer(error) is may


def test_the_prompt_waits_for_an_outage_if_any_backend_is_away() -> None:
    away = BackendError("upstream_error", "away", is_outage=True)

    assert deciding_failure([away, BackendError("upstream_error", "500")]) is away


def test_the_shortest_pause_counts() -> None:
    long = BackendError("upstream_error", "429", retry_after_s=60.0)
    short = BackendError("upstream_error", "429", retry_after_s=2.0)

    assert deciding_failure([long, short, refused(404)]) is short


def test_without_a_failure_that_may_pass_the_last_one_counts() -> None:
    last = refused(404)

    assert deciding_failure([refused(404), last]) is last
