"""Numbers, ids and names of tool calls, as different servers send them."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from shared.log.events import ToolCall
from workers.backends.openai.tool_fragments import read_fragment
from workers.backends.reading.half_pairs import HalfPairs
from workers.backends.reading.tools import Fragment, ToolCalls


def read(*deltas: dict[str, Any]) -> list[ToolCall]:
    """Return each call in one piece."""
    calls, halves = ToolCalls("g"), HalfPairs()
    events: list[ToolCall] = []
    for delta in deltas:
        fragment = read_fragment(delta, begun=len(calls), halves=halves, warnings=set())
        events += calls.read(fragment)
    return joined([*events, *calls.finish()])


def joined(events: list[ToolCall]) -> list[ToolCall]:
    found: dict[int, ToolCall] = {}
    for event in events:
        first = found.setdefault(event.index, event)
        if first is not event:
            assert not event.call_id and not event.name
            whole = first.arguments + event.arguments
            found[event.index] = msgspec.structs.replace(first, arguments=whole)
    assert list(found) == list(range(len(found)))
    assert all(call.call_id for call in found.values())
    return list(found.values())


def piece(arguments: Any = "", name: str | None = None, **members: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}} | members


# Name of the server's habit, the fragments, the calls.
TABLE: dict[str, tuple[list[dict[str, Any]], list[ToolCall]]] = {
    "openai": (
        [piece("", "f", index=0, id="a"), piece("{", index=0), piece("}", index=0),
         piece("", "g", index=1, id="b"), piece("[]", index=1)],
        [ToolCall(0, "a", "f", "{}"), ToolCall(1, "b", "g", "[]")],
    ),
    "interleaved": (
        [piece("", "f", index=0, id="a"), piece("", "g", index=1, id="b"), piece("1", index=0),
         piece("2", index=1)],
        [ToolCall(0, "a", "f", "1"), ToolCall(1, "b", "g", "2")],
    ),
    "id and name in every fragment": (
        [piece(text, "f", index=0, id="a") for text in ('{"x', '":', "1}")],
        [ToolCall(0, "a", "f", '{"x":1}')],
    ),
    "a new id in every fragment": (
        [piece("", "f", index=0, id="a"), piece('{"x"', index=0, id="b"),
         piece(":1}", index=0, id="c")],
        [ToolCall(0, "a", "f", '{"x":1}')],
    ),
    "a new id and the name in every fragment": (
        [piece('{"x', "f", index=0, id="a"), piece('":', "f", index=0, id="b"),
         piece("1}", "f", index=0, id="c")],
        [ToolCall(0, "a", "f", '{"x":1}')],
    ),
    "no index, ids": (
        [piece('{"a":', "f", id="a"), piece("2}", id="a"), piece("3", "g", id="b"), piece("4")],
        [ToolCall(0, "a", "f", '{"a":2}'), ToolCall(1, "b", "g", "34")],
    ),
    "neither index nor id": (
        [piece("1", "f"), piece("2"), piece("3", "g")],
        [ToolCall(0, "call_g_0", "f", "12"), ToolCall(1, "call_g_1", "g", "3")],
    ),
    "all at index 0, ids": (
        [piece("{}", "f", index=0, id="a"), piece("{}", "g", index=0, id="b")],
        [ToolCall(0, "a", "f", "{}"), ToolCall(1, "b", "g", "{}")],
    ),
    "all at index 0, ids, the same tool": (
        [piece('{"a":1}', "f", index=0, id="a"), piece('{"a":1}', "f", index=0, id="b")],
        [ToolCall(0, "a", "f", '{"a":1}'), ToolCall(1, "b", "f", '{"a":1}')],
    ),
    "all at index 0, ids, no arguments": (
        [piece("", "f", index=0, id="a"), piece("", "f", index=0, id="b")],
        [ToolCall(0, "a", "f"), ToolCall(1, "b", "f")],
    ),
    "all at index 0, empty ids": (
        [piece('{"a":1}', "f", index=0, id=""), piece('{"b":2}', "g", index=0, id="")],
        [ToolCall(0, "call_g_0", "f", '{"a":1}'), ToolCall(1, "call_g_1", "g", '{"b":2}')],
    ),
    "all at index 0, in fragments": (
        [piece("", "f", index=0, id="a"), piece('{"a":', index=0), piece("1}", index=0),
         piece("", "g", index=0, id="b"), piece('{"b":', index=0), piece("2}", index=0)],
        [ToolCall(0, "a", "f", '{"a":1}'), ToolCall(1, "b", "g", '{"b":2}')],
    ),
    "the same id for all, numbers": (
        [piece("{}", "f", index=0, id="x"), piece('{"b"', "g", index=1, id="x"),
         piece(":2}", index=1, id="x")],
        [ToolCall(0, "x", "f", "{}"), ToolCall(1, "call_g_1", "g", '{"b":2}')],
    ),
    "the same id for all, index 0": (
        [piece('{"a":1}', "f", index=0, id="x"), piece('{"b"', "g", index=0, id="x"),
         piece(":2}", index=0, id="x")],
        [ToolCall(0, "x", "f", '{"a":1}'), ToolCall(1, "call_g_1", "g", '{"b":2}')],
    ),
    "the same id for all, no numbers": (
        [piece('{"a":1}', "f", id="x"), piece('{"b"', "g", id="x"), piece(":2}", id="x")],
        [ToolCall(0, "x", "f", '{"a":1}'), ToolCall(1, "call_g_1", "g", '{"b":2}')],
    ),
    "the id comes late": (
        [piece("", "f", index=0), piece('{"a"', index=0), piece(":1}", index=0, id="a")],
        [ToolCall(0, "a", "f", '{"a":1}')],
    ),
    "the id comes late, no numbers": (
        [piece('{"a"', "f"), piece(":1}", id="a")],
        [ToolCall(0, "a", "f", '{"a":1}')],
    ),
    "the name comes in pieces": (
        [piece("", "get_", index=0, id="a"), piece("", "weather", index=0), piece("{}", index=0)],
        [ToolCall(0, "a", "get_weather", "{}")],
    ),
    "the name comes after the id": (
        [piece("", index=0, id="a"), piece("", "f", index=0), piece("{}", index=0)],
        [ToolCall(0, "a", "f", "{}")],
    ),
    "the name grows": (
        [piece("", "get_", index=0, id="a"), piece("{}", "get_weather", index=0, id="a")],
        [ToolCall(0, "a", "get_weather", "{}")],
    ),
    "indexes from 1": (
        [piece("1", "f", index=1, id="a"), piece("2", index=1)], [ToolCall(0, "a", "f", "12")]
    ),
    "arguments as an object": (
        [piece({"q": "流"}, "f", id="a")], [ToolCall(0, "a", "f", '{"q":"流"}')]
    ),
    "all arguments again": (
        [piece('{"a":', "f", index=0, id="a"), piece("1}", index=0), piece('{"a":1}', index=0)],
        [ToolCall(0, "a", "f", '{"a":1}')],
    ),
    "all arguments again, with id and name": (
        [piece('{"a":1}', "f", index=0, id="a"), piece('{"a":1}', "f", index=0, id="a")],
        [ToolCall(0, "a", "f", '{"a":1}')],
    ),
    "a number as id": ([piece("{}", "f", id=7)], [ToolCall(0, "7", "f", "{}")]),
    "a custom tool": (
        [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "sh", "input": "ls"}},
         {"index": 0, "type": "custom", "custom": {"input": " -l"}}],
        [ToolCall(0, "a", "sh", "ls -l", {"type": "custom"})],
    ),
    "an unknown member": (
        [piece("{}", "f", index=0, id="a", extra_content={"google": {"thought_signature": "S"}})],
        [ToolCall(0, "a", "f", "{}", {"extra_content": {"google": {"thought_signature": "S"}}})],
    ),
    "half a character": (
        [piece('"\ud83d', "f", index=0, id="a"), piece('\ude80"', index=0)],
        [ToolCall(0, "a", "f", '"🚀"')],
    ),
    "an empty fragment": ([{}], [ToolCall(0, "call_g_0")]),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_which_call_a_fragment_belongs_to(name: str) -> None:
    fragments, calls = TABLE[name]
    assert read(*fragments) == calls


def test_a_call_leaves_as_soon_as_its_arguments_begin() -> None:
    calls = ToolCalls()
    assert calls.read(Fragment(0, "a", "f")) == []
    assert calls.read(Fragment(0, arguments="{")) == [ToolCall(0, "a", "f", "{")]
    assert calls.read(Fragment(0, arguments="}")) == [ToolCall(0, arguments="}")]


def test_long_arguments_in_small_fragments_are_read_in_linear_time() -> None:
    calls = ToolCalls()
    begun_s = time.thread_time()
    for _ in range(50_000):
        calls.read(Fragment(0, "a", "f", '"'))
    assert time.thread_time() - begun_s < 1.0
