"""JSON from clients: which texts are refused, and with which status."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.intake.strict_json import DEPTH_MAX, decode_json
from shared.errors import RequestError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def status_of(raw: bytes) -> int:
    with pytest.raises(RequestError) as caught:
        decode_json(raw)
    return caught.value.status


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{} x",
        b"nul",
        b"[1,]",
        b"01",
        b".5",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b'"\xff"',
        b'{"\xff":1}',
        b'"\xed\xa0\x80"',  # the bytes of a surrogate are not UTF-8
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'"\x00"',
        b"[1e999]",
        b"-1e400",
        b"9" * 5000,
        b"18446744073709551616",
        b"[-9223372036854775809]",
        b'{"a":123456789012345678901234}',
        nested(DEPTH_MAX + 1),
        nested(100_000),
        b"[" * 100_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
    ],
)
def test_a_text_that_is_not_json_is_400(raw: bytes) -> None:
    assert status_of(raw) == 400


@pytest.mark.parametrize(
    "raw",
    [
        rb'"\ud800"',
        rb'"\uDFFF"',
        rb'{"a":["\ude00\ud83d"]}',
        rb'{"\ud800":1}',
        rb'"\ud83d\ud83d\ude00"',
    ],
)
def test_a_lone_surrogate_is_422(raw: bytes) -> None:
    assert status_of(raw) == 422


def test_a_lone_surrogate_in_a_text_that_is_not_json_is_400() -> None:
    assert status_of(rb'{"a":"\ud800"') == 400


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\\ud800"', "\\ud800"),
        (rb'"[[[[\"{{{{18446744073709551616"', '[[[["{{{{18446744073709551616'),
        (b"18446744073709551615", 2**64 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"0.11111111111111111111111111", 0.11111111111111111),
        (b"1e-999", 0.0),
        (b'{"a":1,"a":2}', {"a": 2}),
        (nested(DEPTH_MAX), json.loads(nested(DEPTH_MAX))),
        (b"[" + b"[]," * 1000 + b"[]]", [[]] * 1001),
    ],
)
def test_valid_json_is_decoded(raw: bytes, value: object) -> None:
    assert decode_json(raw) == value


@given(JSON, st.booleans())
def test_any_json_value_is_decoded_unchanged(value: object, is_ascii: bool) -> None:
    raw = json.dumps(value, ensure_ascii=is_ascii).encode()

    assert decode_json(raw) == json.loads(raw)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()[:-1]))
def test_any_bytes_give_a_value_or_a_4xx(raw: bytes) -> None:
    try:
        value = decode_json(raw)
    except RequestError as exc:
        assert exc.status in (400, 422)
    else:
        msgspec.json.encode(value)


FRAGMENTS = st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b"\\", b"\\ud800", b"\\udc00", b"\\u", b"d83d", b",", b":"]
    + [b"1", b"-", b"e9", b".999999999999999999999", b"null", b"\xed\xa0\x80", b"\xc3", b"a"]
)


@given(st.lists(FRAGMENTS, max_size=40).map(b"".join))
def test_any_mix_of_fragments_gives_a_value_or_a_4xx(raw: bytes) -> None:
    try:
        value = decode_json(raw)
    except RequestError as exc:
        assert exc.status in (400, 422)
    else:
        msgspec.json.encode(value)


@pytest.mark.parametrize(
    "raw",
    [
        b'"' + b'\\"' * 500_000,
        b'"' * 500_001,
        b"\\" * 1_000_000,
        b"[" + b"{}," * 300_000 + b"]",
        b"[" + b"[[[[[[[]]]]]]]," * 60_000 + b"0" * 20 + b"]",
        b'["' + b"\\ud800" * 150_000 + b'"]',
        nested(DEPTH_MAX + 1) + b" " * 1_000_000,
        b"[" + (nested(DEPTH_MAX) + b",") * 15_000 + b"0]",
    ],
    ids=range(8),
)
def test_hostile_bytes_take_linear_time(raw: bytes) -> None:
    """In quadratic time each of these texts would take minutes."""
    assert status_of(raw) == 400
