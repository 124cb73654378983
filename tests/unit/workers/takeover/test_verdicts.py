"""Which form a model continues in, and whether the form was seen to hold."""

from __future__ import annotations

import pytest

from shared.config.kinds.openai import CONTINUE_STYLES
from shared.config.model_request import RequestRules
from shared.config.models import Model
from shared.queue.continuations import Verdict, field_of
from workers.takeover.verdicts import NO_FORM, Form, choose_form

CFM, PREFIX, TRAILING = CONTINUE_STYLES


def verdict(**forms) -> Verdict:
    return Verdict(model="m", forms=forms, at_ms=1)


@pytest.mark.parametrize(
    ("on_takeover", "style", "found", "form"),
    [
        ("auto", CFM, None, NO_FORM),
        ("auto", CFM, verdict(**{CFM: "begins anew", TRAILING: "other"}), NO_FORM),
        ("auto", CFM, verdict(**{CFM: "refuses", TRAILING: "continues"}), Form(TRAILING, True)),
        ("auto", CFM, verdict(**{TRAILING: "echoes", PREFIX: "continues"}), Form(PREFIX, True)),
        (
            "auto",
            TRAILING,
            verdict(**{CFM: "refuses", TRAILING: "echoes"}),
            Form(TRAILING, True, True),
        ),
        ("auto", TRAILING, verdict(**{CFM: "continues", TRAILING: "echoes"}), Form(CFM, True)),
        ("continue", TRAILING, verdict(**{TRAILING: "echoes"}), Form(TRAILING, True, True)),
        ("continue", PREFIX, None, Form(PREFIX, False)),
        ("continue", PREFIX, verdict(**{CFM: "continues"}), Form(PREFIX, False)),
        ("continue", PREFIX, verdict(**{PREFIX: "continues"}), Form(PREFIX, True)),
        ("restart", CFM, verdict(**{CFM: "continues"}), NO_FORM),
        ("fail", CFM, verdict(**{CFM: "continues"}), NO_FORM),
    ],
)
def test_the_form_of_a_model(on_takeover, style, found, form):
    model = Model(name="m", on_takeover=on_takeover, continue_style=style)

    assert choose_form(model, found) == form


def test_the_demo_always_continues():
    demo = Model(name="d", backend="demo")

    assert choose_form(demo, None).is_verified


def test_a_verdict_belongs_to_a_server_a_model_and_the_rules_of_its_requests():
    model = Model(name="m", base_url="http://a/v1", model="q")
    same = Model(name="another name", base_url="http://a/v1", model="q", on_takeover="continue")
    others = [
        Model(name="m", base_url="http://b/v1", model="q"),
        Model(name="m", base_url="http://a/v1", model="p"),
        Model(name="m", base_url="http://a/v1", model="q", rules=RequestRules(omit=("stop",))),
        Model(name="m", base_url="http://a/v1", model="q", rules=RequestRules(set={"a": 1})),
    ]

    assert field_of(same) == field_of(model)
    assert len({field_of(model), *map(field_of, others)}) == 5
