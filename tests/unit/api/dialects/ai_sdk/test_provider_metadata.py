"""What the model wants back, over the parts of a UI message."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api.dialects.ai_sdk.fold import ChunkBuilder
from api.dialects.ai_sdk.request import parse_ai_sdk
from shared.log.events import (
    AnyEvent,
    End,
    Extra,
    Reasoning,
    Reset,
    Start,
    Token,
    ToolCall,
    encode,
)
from tests.support.recorded import recorded_meta

FIRST: dict[str, Any] = {"type": "reasoning.text", "text": "Hm.", "signature": "c2ln"}
SECOND: dict[str, Any] = {"type": "reasoning.encrypted", "data": "RW5j"}
SIGNED = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
CALL = ToolCall(0, "c", "f", "{}", SIGNED)


def kept(*details: dict[str, Any]) -> Extra:
    return Extra({"delta": {"reasoning_details": list(details)}})


def metadata_of(*events: AnyEvent) -> dict[str, Any]:
    """Return our metadata, by the type of the chunk that has it."""
    builder = ChunkBuilder(recorded_meta())
    found = {}
    for event in [Start(1, "m"), *events, End("completed", "stop")]:
        for raw in builder.add(encode(event)):
            chunk = msgspec.json.decode(raw)
            if "providerMetadata" in chunk:
                found[chunk["type"]] = chunk["providerMetadata"]["tailrace"]
    return found


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (
            [Reasoning("Hm."), kept(FIRST), Token("Yes")],
            {"reasoning-end": {"reasoning_details": [FIRST]}},
        ),
        ([kept(SECOND), Token("Yes")], {"text-end": {"reasoning_details": [SECOND]}}),
        ([Token("Yes"), kept(SECOND)], {"text-end": {"reasoning_details": [SECOND]}}),
        (
            [Reasoning("Hm."), kept(FIRST), kept(SECOND), CALL],
            {
                "reasoning-end": {"reasoning_details": [FIRST]},
                "tool-input-available": {"reasoning_details": [SECOND], "extra": SIGNED},
            },
        ),
        ([Reasoning("a"), kept(FIRST), Reset("restarted"), Token("Yes")], {}),
        ([Reasoning("Hm."), Token("Yes")], {}),
    ],
)
def test_the_next_part_that_ends_has_the_metadata(
    events: list[AnyEvent], expected: dict[str, Any]
) -> None:
    found = metadata_of(*events)
    if any(isinstance(event, Reset) for event in events):
        del found["reasoning-end"]  # left before the reset

    assert found == expected


def part(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, **members}


def back(**ours: Any) -> dict[str, Any]:
    return {"tailrace": ours}


def test_the_parts_become_one_turn() -> None:
    tool = part(
        "tool-f",
        toolCallId="c",
        state="output-available",
        input={},
        output="r",
        callProviderMetadata=back(extra=SIGNED, reasoning_details=[SECOND]),
    )
    parts = [
        part("step-start"),
        part("reasoning", text="Hm.", providerMetadata=back(reasoning_details=[FIRST])),
        part("text", text="Yes", providerMetadata={"openai": {"itemId": "x"}}),
        tool,
    ]
    body = {"messages": [{"role": "assistant", "parts": parts}]}
    turn, result = parse_ai_sdk(body).request.messages

    function = {"name": "f", "arguments": "{}"}
    assert turn == {
        "role": "assistant",
        "content": "Yes",
        "tool_calls": [{**SIGNED, "id": "c", "type": "function", "function": function}],
        "reasoning_details": [FIRST, SECOND],
    }
    assert result["role"] == "tool"


@pytest.mark.parametrize(
    "odd", [None, 5, {"tailrace": 1}, back(reasoning_details=1, extra=1), back(extra={"id": "z"})]
)
def test_odd_metadata_says_nothing(odd: Any) -> None:
    tool = part(
        "tool-f", toolCallId="c", state="output-available", output="r", callProviderMetadata=odd
    )
    turn, _ = parse_ai_sdk({"messages": [{"role": "assistant", "parts": [tool]}]}).request.messages

    function = {"name": "f", "arguments": "{}"}
    assert turn["tool_calls"] == [{"id": "c", "type": "function", "function": function}]
    assert "reasoning_details" not in turn
