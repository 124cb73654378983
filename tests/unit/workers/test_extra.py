"""`extra` on its way into the log: such text is not joined, and pictures are not continued."""

from __future__ import annotations

import pytest

from shared.config.models import Model
from shared.log.events import AnyEvent, Extra, Token, decode, encode
from shared.log.ids import EventId
from shared.log.request import Request
from workers.takeover.continuation import plan_attempt
from workers.writing.outbox import Outbox

FACT = {"chunk": {"system_fingerprint": "p"}}
PICTURES = {"delta": {"images": [1]}}


def test_text_with_extra_is_not_joined() -> None:
    outbox = Outbox("g", "t", found=[], start=(EventId(1, 1), b"{}"), fields={}, now_s=0)
    events: list[AnyEvent] = [Token("a"), Token("b"), Token("c", FACT), Token("d"), Token("e")]
    for event in events:
        outbox.push(event)
    outbox.take(0)
    assert [decode(raw) for _, raw in outbox.log[1:]] == [
        Token("ab"),
        Token("c", FACT),
        Token("de"),
    ]


@pytest.mark.parametrize(
    ("events", "prefix"),
    [
        ([Token("a", FACT), Extra(FACT), Token("b")], "ab"),
        ([Token("a"), Extra(PICTURES)], ""),
        ([Token("a", PICTURES)], ""),
    ],
)
def test_facts_are_continued_and_pictures_are_not(events: list[AnyEvent], prefix: str) -> None:
    log = [(EventId(1, n), encode(event)) for n, event in enumerate(events, 1)]
    model = Model(name="m", base_url="http://u", on_takeover="continue")
    plan = plan_attempt(log, Request(messages=[]), model, can_continue=True)
    assert (plan.prefix, plan.needs_reset) == (prefix, not prefix)
