"""Requests that would be expensive to decode are refused before."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.grpc.bounds import DEPTH_MAX, FIELDS_MAX, check_fields, check_values
from api.dialects.grpc.generated import tailrace_pb2 as pb
from api.dialects.grpc.messages import read_message
from api.dialects.grpc.wire import field_bytes

EIGHT_MIB = 8_388_608
EMPTY_VALUES = field_bytes(2, field_bytes(3, b"\x0a\x00" * (EIGHT_MIB // 2)))
EMPTY_MESSAGES = b"\x12\x00" * (EIGHT_MIB // 2)
UNKNOWN_FIELDS = b"\x78\x00" * (EIGHT_MIB // 2)


@pytest.mark.parametrize("raw", [EMPTY_VALUES, EMPTY_MESSAGES, UNKNOWN_FIELDS])
def test_millions_of_fields_are_refused_without_decoding_them(raw: bytes) -> None:
    began_at = time.process_time()
    with pytest.raises(ValueError, match=f"more than {FIELDS_MAX} fields"):
        read_message(pb.GenerateRequest, raw, is_json=False)

    assert time.process_time() - began_at < 0.5  # decoding takes 1.3 s


def test_a_long_conversation_and_a_large_picture_pass() -> None:
    request = pb.GenerateRequest()
    for _ in range(3_000):
        request.messages.add(role="user", content="Hi")
    request.messages.add(role="user").parts.extend([{"type": "text", "text": "x" * 1_000_000}])

    assert read_message(pb.GenerateRequest, request.SerializeToString(), is_json=False) == request


def test_deep_nesting_is_refused() -> None:
    raw = b""
    for _ in range(DEPTH_MAX):
        raw = field_bytes(5, field_bytes(1, field_bytes(2, raw)))  # Value, Struct, Entry

    with pytest.raises(ValueError, match="too deep"):
        check_fields(raw, "Value")


@given(st.binary(max_size=60))
def test_what_protobuf_decodes_is_never_called_broken(raw: bytes) -> None:
    """Groups, which proto3 does not have, are the exception."""
    try:
        pb.GenerateRequest.FromString(raw)
    except Exception:  # whatever protobuf says
        return
    try:
        check_fields(raw)
    except ValueError:
        assert any(byte & 7 in (3, 4) for byte in raw)


def test_values_of_json_are_counted() -> None:
    check_values({"a": [0] * (FIELDS_MAX - 1)})
    with pytest.raises(ValueError):
        check_values({"a": [[0] * 1_000 for _ in range(FIELDS_MAX // 1_000)]})
