"""What is left of an answer that a server gives again from its beginning."""

from __future__ import annotations

import pytest

from shared.log.events import (
    AnyEvent,
    Extra,
    Reasoning,
    Reset,
    Start,
    Token,
    ToolCall,
    Upstream,
    Usage,
    encode,
)
from shared.log.ids import EventId
from shared.log.records import Entry
from workers.backends.contract import BackendItem, Finish
from workers.takeover.repetition import Repetition

KEPT = Extra({"delta": {"reasoning_details": [{"data": "x"}]}})
ANSWER: list[AnyEvent] = [
    Upstream("resp_1"),
    Reasoning("Let "),
    Reasoning("me."),
    KEPT,
    Token("Hel"),
    Token("lo", {"choice": {"logprobs": [1]}}),
    ToolCall(0, "call_a", "f"),
    ToolCall(0, arguments='{"a"'),
    ToolCall(0, arguments=":1}"),
    ToolCall(1, "call_b", "g", "{}", {"x": 1}),
    Usage(1, 2, 3),
]


def log_of(*events: AnyEvent) -> list[Entry]:
    return [(EventId(1, n), encode(event)) for n, event in enumerate(events, 1)]


def content(items: list[BackendItem]) -> tuple[str, str, list[object], dict[int, str]]:
    """Return what the events say, whatever their borders are."""
    text = "".join(item.text for item in items if isinstance(item, Token))
    thoughts = "".join(item.text for item in items if isinstance(item, Reasoning))
    extras: list[object] = [
        item.extra for item in items if isinstance(item, Token | Reasoning | Extra) and item.extra
    ]
    calls: dict[int, str] = {}
    for item in items:
        if isinstance(item, ToolCall):
            before = calls.get(item.index, "")
            calls[item.index] = before + item.call_id + item.name + item.arguments
    return text, thoughts, extras, calls


@pytest.mark.parametrize("known", range(len(ANSWER) + 1))
def test_the_log_and_the_rest_are_the_whole_answer(known: int) -> None:
    repetition = Repetition(log_of(Start(1, "m"), *ANSWER[:known]))
    rest = [item for event in ANSWER for item in repetition.rest_of([event])]

    assert content([*ANSWER[:known], *rest]) == content([*ANSWER])
    assert not any(isinstance(item, Upstream) for item in rest)


@pytest.mark.parametrize("known", range(len("Hello") + 1))
def test_borders_between_pieces_may_differ(known: int) -> None:
    repetition = Repetition(log_of(Token("Hello"[:known])))
    rest = repetition.rest_of([Token("He"), Token("llo"), Finish("stop")])

    assert "".join(item.text for item in rest if isinstance(item, Token)) == "Hello"[known:]
    assert rest[-1] == Finish("stop")


def test_what_a_reset_has_made_void_is_not_known() -> None:
    repetition = Repetition(log_of(Token("old"), KEPT, Reset("restarted"), Token("n")))

    assert repetition.rest_of([Token("new"), KEPT]) == [Token("ew"), KEPT]
