"""Large JSON is decoded in steps, with the result of a decoding at once."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import RequestError
from api.intake import large_json
from api.intake.large_json import Scan, decode_large, string_slices
from api.intake.strict_json import decode_json

TEXT = st.text(st.sampled_from('ab"\\/\n\u00e9\u6f22\U0001f600\x00 ,:[]{}'), max_size=90)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
# Pieces that make broken documents, and documents of which a slice ends anywhere.
PIECES = st.sampled_from(
    [b'"', b"\\", b"\\\\", b'\\"', b"\\ud83d", b"\\ude00", b"\\u00e9", b"\xf0\x9f", b"a" * 40,
     b"[", b"]", b"{", b"}", b",", b":", b" ", b"1", b"\xe6\xbc\xa2", b"\n"]
)  # fmt: skip


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few bytes go the way of a megabyte."""
    for name, value in (("STEPPED_BYTES", 0), ("SLICE_BYTES", 32), ("LONG_BYTES", 8)):
        monkeypatch.setattr(large_json, name, value)


def outcome(decode: Any, raw: bytes) -> Any:
    try:
        return decode(raw)
    except RequestError as error:
        assert error.status in (400, 422)  # with two mistakes, the first that is found counts
        return RequestError


def in_steps(raw: bytes) -> Any:
    return asyncio.run(decode_large(raw))


@given(JSON, st.booleans())
def test_a_document_in_steps_is_the_document_at_once(value: Any, is_ascii: bool) -> None:
    raw = json.dumps([value], ensure_ascii=is_ascii).encode()
    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink(monkeypatch)

        assert in_steps(raw) == decode_json(raw) == [value]


@given(st.lists(PIECES, max_size=30).map(b"".join), st.sampled_from([b'["%b"]', b"[%b]", b"%b"]))
def test_a_broken_document_is_refused_in_steps_as_at_once(content: bytes, around: bytes) -> None:
    raw = around % content
    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink(monkeypatch)

        assert outcome(in_steps, raw) == outcome(decode_json, raw)


@given(TEXT.map(lambda text: text * 3), st.booleans(), st.integers(32, 70))
def test_the_slices_of_a_string_are_strings(text: str, is_ascii: bool, size: int) -> None:
    raw = json.dumps(text, ensure_ascii=is_ascii).encode()

    slices = list(string_slices(raw, 1, len(raw) - 1, size))

    assert b"".join(slices) == raw[1:-1]
    assert "".join(json.loads(b'"%b"' % piece) for piece in slices) == text
    assert max(map(len, slices)) <= size


@pytest.mark.parametrize(
    "raw",
    [
        b'{"prompt":"' + b"x" * 3_000_000 + b'","params":{"a":[' + b"[]," * 60_000 + b"1]}}",
        b"[" + b'"",' * 250_000 + b'""]',
        b"[" + b"1" * 3_000_000 + b"]",
        b"[" + b"1e300," * 600 + b'"' + b"x" * 3_000_000 + b'"]',
    ],
    ids=["brackets", "quotes", "digits", "exponents"],
)
async def test_a_large_document_with_too_many_values_is_refused(raw: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        await decode_large(raw)

    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def scanned(raw: bytes, slice_bytes: int) -> tuple[list[tuple[int, int]], bytes]:
    scan = Scan(raw, slice_bytes)
    list(scan.steps())
    scan.check()
    return scan.long_strings, scan.bare


@given(JSON, st.integers(1, 40))
def test_the_slices_of_a_scan_do_not_matter(value: Any, slice_bytes: int) -> None:
    raw = json.dumps([value, 'ends with \\ and "']).encode()
    with pytest.MonkeyPatch.context() as monkeypatch:
        shrink(monkeypatch)

        assert scanned(raw, slice_bytes) == scanned(raw, len(raw))


async def test_half_a_surrogate_pair_in_a_long_string_is_422(small_steps: None) -> None:
    with pytest.raises(RequestError) as caught:
        await decode_large(b'["' + b"a" * 60 + b'\\ud83d"]')

    assert caught.value.status == 422


def test_a_name_stays_in_the_skeleton(small_steps: None) -> None:
    scan = Scan(b'{"a long name":"a long value", "another name" : 1}', 32)
    list(scan.steps())

    assert [(start, end) for start, end in scan.long_strings] == [(16, 28)]


async def test_no_step_of_a_large_picture_takes_long() -> None:
    raw = bytearray(b'{"messages":[{"role":"user","content":"' + b"iVBORw0KGgo" * 400_000 + b'"}]}')
    longest, last = 0.0, time.thread_time()

    async def watch() -> None:
        nonlocal longest, last
        while True:
            now = time.thread_time()
            longest, last = max(longest, now - last), now
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await decode_large(raw)
    watching.cancel()

    assert longest < 0.06  # three times the bound of docs/protocol.md, "Limits"
