"""Frames cut at each byte, and protobuf's own encoding beside ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.grpc.generated import tailrace_pb2 as pb
from api.dialects.grpc.wire import (
    CONNECT_END,
    HEAD_BYTES,
    TRAILERS,
    Frame,
    FrameReader,
    field_int,
    field_text,
    frame,
    varint,
)

FRAMES = [Frame(0, b"one"), Frame(0, b""), Frame(0, b"x" * 300), Frame(TRAILERS, b"grpc-status: 0")]
WIRE = b"".join(frame(payload, flags) for flags, payload in FRAMES)


@pytest.mark.parametrize("cut", range(len(WIRE) + 1))
def test_frames_are_the_same_wherever_the_bytes_are_cut(cut: int) -> None:
    reader = FrameReader(1_000)

    found = [*reader.feed(WIRE[:cut]), *reader.feed(WIRE[cut:])]

    assert found == FRAMES
    assert reader.is_between


def test_frames_are_the_same_byte_by_byte() -> None:
    reader = FrameReader(1_000)

    found = [each for at in range(len(WIRE)) for each in reader.feed(WIRE[at : at + 1])]

    assert found == FRAMES


@pytest.mark.parametrize("cut", range(1, HEAD_BYTES + 3))
def test_an_incomplete_frame_is_seen(cut: int) -> None:
    reader = FrameReader(1_000)

    assert list(reader.feed(frame(b"one")[:cut])) == []
    assert not reader.is_between


def test_a_frame_beyond_the_limit_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(ValueError, match="101 bytes"):
        list(FrameReader(100).feed(frame(b"x" * 101)[:HEAD_BYTES]))


def test_the_last_frame_of_connect_has_its_own_flags() -> None:
    assert frame(b"{}", CONNECT_END) == b"\x02\0\0\0\x02{}"


@given(st.integers(0, 2**63 - 1), st.text(max_size=300))
def test_fields_are_encoded_as_protobuf_does(number: int, text: str) -> None:
    assert field_int(1, number) == pb.Started(attempt=number).SerializeToString()
    assert field_text(2, text) == pb.Started(model=text).SerializeToString()


def test_a_varint_has_seven_bits_in_each_byte() -> None:
    assert [varint(0), varint(127), varint(128), varint(300)] == [
        b"\0", b"\x7f", b"\x80\x01", b"\xac\x02",
    ]  # fmt: skip
