"""JSON mode: one level is flattened, and the text of each value stays as it was sent."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.streams.content import flatten, is_text, join, media_of, split_values

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("raw", "stored"),
    [
        (b'{"a":1}', b'{"a":1}'),
        (b" [1, 2 ] \n", b"1, 2"),
        (b"[[1,2],[3]]", b"[1,2],[3]"),
        (b"[]", b""),
        (b"[ ]", b""),
        (b"[0.10000000000000000000001]", b"0.10000000000000000000001"),
        (b'"[1]"', b'"[1]"'),
    ],
)
def test_an_array_loses_one_level(raw: bytes, stored: bytes) -> None:
    assert flatten(raw) == stored


@given(st.lists(VALUES, min_size=1, max_size=4), st.sampled_from([None, 1]))
def test_what_was_appended_is_read(values: list[object], indent: int | None) -> None:
    stored = flatten(json.dumps(values, indent=indent).encode())

    assert json.loads(join("application/json", [stored, b"7"])) == [*values, 7]
    assert [json.loads(value) for value in split_values(stored)] == values


def test_media_types() -> None:
    assert media_of("Application/JSON; charset=utf-8") == "application/json"
    assert is_text("text/csv") and is_text("application/json")
    assert not is_text("application/octet-stream") and not is_text("application/xml")
