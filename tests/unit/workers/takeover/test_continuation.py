"""When an attempt continues the partial answer, and when it starts again."""

from __future__ import annotations

import pytest

from shared.config.models import Model
from shared.log.events import (
    Data,
    File,
    Progress,
    Reasoning,
    Reset,
    Start,
    Token,
    ToolCall,
    Usage,
    encode,
)
from shared.log.ids import EventId
from shared.log.request import Request
from workers.takeover.continuation import AttemptPlan, plan_attempt

REQUEST = Request([{"role": "user", "content": "hello"}])
CONTINUES = Model(name="m", backend="demo", on_takeover="continue")
FRESH = AttemptPlan("", False)
AGAIN = AttemptPlan("", True)


def plan_after(*events, request=REQUEST, model=CONTINUES, can_continue=True):
    """Plan an attempt after these events; the `start` of the new attempt is the last entry."""
    raws = [event if isinstance(event, bytes) else encode(event) for event in events]
    log = [(EventId(1, n), raw) for n, raw in enumerate([*raws, encode(Start(2, "m"))], 1)]
    return plan_attempt(log, request, model, can_continue=can_continue)


def with_params(**params):
    return Request(REQUEST.messages, params)


def test_a_first_attempt_starts_from_the_beginning():
    assert plan_after() == FRESH


def test_plain_text_is_continued():
    assert plan_after(Start(1, "m"), Token("Hel"), Token("lo")) == AttemptPlan("Hello", False)


def test_only_the_text_since_the_last_reset_counts():
    assert plan_after(Token("void"), Reset("restarted"), Token("ok")) == AttemptPlan("ok", False)


def test_the_prefix_joins_the_text_of_all_attempts():
    events = [Start(1, "m"), Token("a"), Start(2, "m"), Token("b"), Start(3, "m"), Token("c")]

    assert plan_after(*events) == AttemptPlan("abc", False)


def test_without_output_no_reset_is_needed():
    for model in (CONTINUES, Model(name="m", on_takeover="restart")):
        assert plan_after(Start(1, "m"), model=model) == FRESH
        assert plan_after(Start(1, "m"), Progress("pdf", 1, 2, 50.0), model=model) == FRESH
        assert plan_after(Token("x"), Reset("restarted"), model=model) == FRESH
        assert plan_after(Token(""), model=model) == FRESH


@pytest.mark.parametrize("on_takeover", ["restart", "fail"])
def test_a_model_that_does_not_continue_starts_again(on_takeover):
    """With `fail` this happens only after a drain: the loss of a worker ends the generation."""
    assert plan_after(Token("a"), model=Model(name="m", on_takeover=on_takeover)) == AGAIN


def test_a_backend_that_cannot_continue_starts_again():
    assert plan_after(Token("a"), can_continue=False) == AGAIN


@pytest.mark.parametrize(
    "event",
    [
        Reasoning("hm"),
        ToolCall(0, "c", "f", "{"),
        File("a.png", "image/png", url="http://x"),
        Data("metrics", {"a": 1}),
        b'{"type":"hologram","of":"a later version"}',
        b'{"type":"token","text":7}',
    ],
    ids=["reasoning", "tool call", "file", "data", "unknown type", "unknown shape"],
)
def test_only_plain_text_is_continued(event):
    assert plan_after(Token("a"), event, Token("b")) == AGAIN
    assert plan_after(event, Token("b")) == AGAIN
    assert plan_after(event) == AGAIN


def test_output_before_a_reset_is_ignored():
    assert plan_after(Reasoning("hm"), Reset("restarted"), Token("a")) == AttemptPlan("a", False)


def test_usage_and_progress_do_not_prevent_continuing():
    assert plan_after(Progress("pdf", 1, 1, 100.0), Token("a"), Usage(1, 2, 3)) == AttemptPlan(
        "a", False
    )


@pytest.mark.parametrize(
    "params",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"guided_json": {}, "guided_regex": "a+"},
        {"structured_outputs": {"regex": "a"}},
        {"logprobs": True},
        {"top_logprobs": 3},
    ],
)
def test_structured_output_is_not_continued(params):
    assert plan_after(Token("{"), request=with_params(**params)) == AGAIN


@pytest.mark.parametrize(
    "params",
    [{"response_format": {"type": "text"}}, {"logprobs": False}, {"max_tokens": 5}, {}],
)
def test_plain_text_requests_are_continued(params):
    assert plan_after(Token("a"), request=with_params(**params)) == AttemptPlan("a", False)
