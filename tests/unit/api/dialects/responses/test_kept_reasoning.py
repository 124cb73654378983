"""Thoughts that go back, as `encrypted_content` of reasoning items."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.dialects.responses.fold import ResponsesFold
from api.dialects.responses.input import messages_of
from api.dialects.responses.kept_reasoning import encrypted_content
from shared.log.events import AnyEvent, End, Extra, Reasoning, Start, Token, ToolCall, encode
from shared.log.ids import EventId
from tests.support.recorded import recorded_meta

FIRST: dict[str, Any] = {"type": "reasoning.text", "text": "Hm.", "signature": "c2ln"}
SECOND: dict[str, Any] = {"type": "reasoning.encrypted", "data": "RW5j"}
USER = {"role": "user", "content": "Hi"}


def kept(*details: dict[str, Any]) -> Extra:
    return Extra({"delta": {"reasoning_details": list(details)}})


def output_of(*events: AnyEvent) -> list[dict[str, Any]]:
    """Return the output of a response, as a client decodes it."""
    fold = ResponsesFold(recorded_meta())
    for number, event in enumerate([Start(1, "m"), *events, End("completed", "stop")], 1):
        fold.add(EventId(1, number), encode(event))
    response: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(fold.response()))
    assert "extra" not in response
    output: list[dict[str, Any]] = response["output"]
    return output


CASES: dict[str, tuple[list[AnyEvent], list[str], dict[str, Any]]] = {
    "thought, text, call": (
        [Reasoning("Hm."), kept(FIRST), Token("Yes"), ToolCall(0, "c", "f", "{}")],
        ["reasoning", "message", "function_call"],
        {"content": "Yes", "reasoning_details": [FIRST]},
    ),
    "thought without a text, and a call": (
        [kept(SECOND), ToolCall(0, "c", "f", "{}")],
        ["reasoning", "function_call"],
        {"content": None, "reasoning_details": [SECOND]},
    ),
    "two thoughts in a row": (
        [Reasoning("Hm."), kept(FIRST), kept(SECOND), Token("Yes")],
        ["reasoning", "reasoning", "message"],
        {"content": "Yes", "reasoning_details": [FIRST, SECOND]},
    ),
    "a thought behind the text": (
        [Token("Yes"), kept(SECOND)],
        ["message", "reasoning"],
        {"content": "Yes", "reasoning_details": [SECOND]},
    ),
    "a thought that is kept piece by piece": (
        [
            Reasoning("H", {"delta": {"reasoning_details": [{"text": "H"}]}}),
            Reasoning("m.", {"delta": {"reasoning_details": [{"text": "m."}]}}),
            kept({"signature": "c2ln"}),
            Token("Yes"),
        ],
        ["reasoning", "message"],
        {
            "content": "Yes",
            "reasoning_details": [{"text": "H"}, {"text": "m."}, {"signature": "c2ln"}],
        },
    ),
    "a thought that is not kept": (
        [Reasoning("Hm."), Token("Yes")],
        ["reasoning", "message"],
        {"content": "Yes"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_output_is_one_turn_again_when_it_is_sent_back(case: str) -> None:
    events, types, expected = CASES[case]
    output = output_of(*events)
    assert [item["type"] for item in output] == types

    _, turn = messages_of([USER, *output])

    calls = turn.pop("tool_calls", [])
    assert turn == {"role": "assistant", **expected}
    assert len(calls) == types.count("function_call")


def test_a_thought_without_a_text_has_no_part() -> None:
    (item,) = output_of(kept(SECOND))

    assert (item["summary"], item["content"]) == ([], [])
    assert item["encrypted_content"] == encrypted_content([SECOND])


@pytest.mark.parametrize("content", [None, "", "gAAAAABo", "tailrace-1:?", "tailrace-1:e30="])
def test_other_contents_are_left_out(content: Any) -> None:
    item = {"type": "reasoning", "summary": [], "encrypted_content": content}

    assert messages_of([USER, item]) == [USER]
