"""Numbers, ids and names of tool calls, as different servers send them."""

from __future__ import annotations

from typing import Any

import msgspec

from shared.log.events import ToolCall
from workers.backends.openai.tools import ToolCallDelta, ToolCalls


def read(*deltas: dict[str, Any]) -> list[ToolCall]:
    calls = ToolCalls()
    return [calls.read(msgspec.convert(delta, ToolCallDelta)) for delta in deltas]


def piece(arguments: Any = "", name: str | None = None, **members: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}} | members


def test_fragments_of_openai() -> None:
    assert read(
        piece("", "f", index=0, id="a"),
        piece("{", index=0),
        piece("}", index=0),
        piece("", "g", index=1, id="b"),
        piece("[]", index=1),
    ) == [
        ToolCall(0, "a", "f"),
        ToolCall(0, arguments="{"),
        ToolCall(0, arguments="}"),
        ToolCall(1, "b", "g"),
        ToolCall(1, arguments="[]"),
    ]


def test_interleaved_calls() -> None:
    assert read(
        piece("", "f", index=0, id="a"),
        piece("", "g", index=1, id="b"),
        piece("1", index=0),
        piece("2", index=1),
    )[2:] == [ToolCall(0, arguments="1"), ToolCall(1, arguments="2")]


def test_repeated_ids_and_names_are_emitted_once() -> None:
    assert read(*[piece(text, "f", index=0, id="a") for text in "xyz"]) == [
        ToolCall(0, "a", "f", "x"),
        ToolCall(0, arguments="y"),
        ToolCall(0, arguments="z"),
    ]


def test_without_an_index_the_id_selects_the_call() -> None:
    assert read(
        piece("1", "f", id="a"), piece("2", id="a"), piece("3", "g", id="b"), piece("4")
    ) == [
        ToolCall(0, "a", "f", "1"),
        ToolCall(0, arguments="2"),
        ToolCall(1, "b", "g", "3"),
        ToolCall(1, arguments="4"),
    ]


def test_without_index_and_id_a_name_begins_a_call() -> None:
    assert read(piece("1", "f"), piece("2"), piece("3", "g")) == [
        ToolCall(0, name="f", arguments="1"),
        ToolCall(0, arguments="2"),
        ToolCall(1, name="g", arguments="3"),
    ]


def test_calls_that_all_have_index_0() -> None:
    assert read(piece("1", "f", index=0, id="a"), piece("2", "g", index=0, id="b")) == [
        ToolCall(0, "a", "f", "1"),
        ToolCall(1, "b", "g", "2"),
    ]


def test_indexes_from_1_become_indexes_from_0() -> None:
    assert [call.index for call in read(piece("1", "f", index=1, id="a"), piece("2", index=1))] == [
        0,
        0,
    ]


def test_arguments_as_an_object_become_a_string() -> None:
    assert read(piece({"q": "流"}, "f"))[0].arguments == '{"q":"流"}'


def test_an_empty_fragment() -> None:
    assert read({}) == [ToolCall(0)]
