"""Counting values before decoding: correct for JSON, and never lower than the decoder's cost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.text.json_values import (
    EXPONENT_VALUES,
    LONG_DIGITS_VALUES,
    VALUES_MAX,
    count_values,
    has_too_many_values,
    without_strings,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def counted(raw: bytes) -> int:
    bare = without_strings(raw)
    assert bare is not None
    return count_values(bare)


def structure(value: Any) -> int:
    """The brackets, commas and colons of a value."""
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(structure, value))
    if isinstance(value, dict):
        return 1 + len(value) + max(0, len(value) - 1) + sum(map(structure, value.values()))
    return 0


@given(JSON, st.booleans(), st.sampled_from([None, 2]))
def test_strings_do_not_count(value: Any, is_ascii: bool, indent: int | None) -> None:
    raw = json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode()

    assert counted(raw) == structure(value)


@pytest.mark.parametrize(
    ("raw", "count"),
    [
        (b'"[[[,,,:::{{{"', 0),
        (rb'["\"[[[\\",1]', 2),
        (rb'["\\\"[[["]', 1),
        (b"[true,false,null]", 3),
        (b"[1e5]", 1 + EXPONENT_VALUES),
        (b"[-1.5E+300]", 1 + EXPONENT_VALUES),
        (b"[123456789012345678]", 1),
        (b"[1234567890123456789]", 1 + LONG_DIGITS_VALUES),
        (b"[0." + b"0" * 190 + b"]", 1 + 10 * LONG_DIGITS_VALUES),
        (b'["1e5", "1234567890123456789"]', 2),
    ],
)
def test_the_count_of_values(raw: bytes, count: int) -> None:
    assert counted(raw) == count


def test_a_long_conversation_is_far_from_the_bound() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = [
        {"role": "user", "content": [{"type": "text", "text": "x" * 100}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "[1,2,3]" * 20},
    ]
    tool = {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
        },
    }
    body = {"messages": turn * 1_000, "params": {"tools": [tool] * 128}}

    assert not has_too_many_values(json.dumps(body).encode())


def test_too_many_strings_are_too_many_values() -> None:
    assert has_too_many_values(b"[" + b'"",' * (2 * VALUES_MAX + 1) + b"1]")
