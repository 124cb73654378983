"""The bytes of gRPC without a library: fields of protobuf, frames of messages, trailers. Pure.

A message on the wire is a frame: one byte of flags, four bytes of length, the message. gRPC,
gRPC-Web and Connect's streams share this frame and differ in the flags of the last one:

    00 llll message        a message
    80 llll trailers       gRPC-Web: the last frame, headers of HTTP/1 as text
    02 llll JSON           Connect: the last frame

Sources: the gRPC documents "PROTOCOL-HTTP2" and "PROTOCOL-WEB", the Connect protocol reference, and
protobuf's "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

HEAD_BYTES = 5
MESSAGE, COMPRESSED, CONNECT_END, TRAILERS = 0x00, 0x01, 0x02, 0x80
LENGTH_DELIMITED = 2  # the wire type of strings, bytes and messages


class Frame(NamedTuple):
    """One frame: its flags and what it holds."""

    flags: int
    payload: bytes


def frame(payload: bytes, flags: int = MESSAGE) -> bytes:
    """Return a payload as one frame."""
    return b"%c%b%b" % (flags, len(payload).to_bytes(4, "big"), payload)


class FrameReader:
    """Cuts bytes that arrive in any pieces into frames.

    Args:
        bytes_max: the largest payload, bytes.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._rest = b""

    @property
    def is_between(self) -> bool:
        """Whether all bytes so far belong to complete frames."""
        return not self._rest

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete now.

        Raises:
            ValueError: a frame is larger than `bytes_max`.
        """
        rest = self._rest + data if self._rest else data
        start = 0
        while len(rest) - start >= HEAD_BYTES:
            size = int.from_bytes(rest[start + 1 : start + HEAD_BYTES], "big")
            if size > self._bytes_max:
                raise ValueError(f"a message of {size} bytes is larger than {self._bytes_max}")
            stop = start + HEAD_BYTES + size
            if len(rest) < stop:
                break
            yield Frame(rest[start], rest[start + HEAD_BYTES : stop])
            start = stop
        self._rest = rest[start:]


def varint(value: int) -> bytes:
    """Return an unsigned integer in protobuf's base 128."""
    if value < 0x80:
        return b"%c" % value
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def field_bytes(number: int, value: bytes) -> bytes:
    """Return a field that holds a string, bytes or a message."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(len(value)) + value


def field_text(number: int, value: str) -> bytes:
    """Return a field that holds a string; nothing for an empty one, which is the default."""
    return field_bytes(number, value.encode("utf-8", "replace")) if value else b""


def field_int(number: int, value: int) -> bytes:
    """Return a field that holds an integer of 0 or more; nothing for 0, which is the default."""
    return varint(number << 3) + varint(value) if value else b""
