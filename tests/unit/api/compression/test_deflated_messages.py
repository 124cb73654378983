"""Frames are valid for zlib's own decoder, and anything a compressor writes is inflated."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.compression import deflated_messages as deflate
from api.compression.deflated_messages import (
    CHAIN_WINDOW_BITS,
    CHAINED_BYTES_MAX,
    COMPRESSED_BYTES_MIN,
    FINAL_BLOCKS_MAX,
    INFLATED_BYTES,
    KEY_EVERY,
    FrameChain,
    Inflater,
    InvalidDeflate,
    compress_steps,
    compressed_or_none,
    last_key,
    lone_frame,
)

TOKEN = b'{"type":"token","id":"gen_1","event_id":"1-%d","text":" word%d"}'
TAIL = b"\x00\x00\xff\xff"


class ClientWindow:
    """A client that keeps its window: zlib's decoder, with the bits that the server announced."""

    def __init__(self, bits: int = 15) -> None:
        self._decoder = zlib.decompressobj(-bits)
        self.compressed = 0

    def read(self, frames: bytes) -> list[bytes]:
        """Return the texts of complete frames."""
        texts = []
        while frames:
            first, size, at = frames[0], frames[1], 2
            if size > 125:
                at = 4 if size == 126 else 10
                size = int.from_bytes(frames[2:at])
            payload, frames = frames[at : at + size], frames[at + size :]
            assert first in (0x81, 0xC1)
            if first == 0xC1:
                self.compressed += 1
                payload = self._decoder.decompress(payload + TAIL)
            texts.append(payload)
        return texts


def tokens(count: int) -> list[bytes]:
    return [TOKEN % (n, n * 7919) for n in range(1, count + 1)]


def test_a_chain_is_much_shorter_than_its_text() -> None:
    texts, chain, client = tokens(10 * KEY_EVERY), FrameChain(), ClientWindow(CHAIN_WINDOW_BITS)
    frames = [chain.add(text) for text in texts]

    assert client.read(b"".join(frames)) == texts
    assert sum(map(len, frames)) < 0.3 * sum(map(len, texts))


@given(
    st.lists(st.integers(0, 3 * KEY_EVERY), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 3 * KEY_EVERY), st.binary(max_size=600)), max_size=8),
)
def test_a_client_may_begin_at_any_key_frame_and_get_plain_messages_in_between(
    starts: list[int], asides: list[tuple[int, bytes]]
) -> None:
    texts, chain = tokens(3 * KEY_EVERY), FrameChain()
    frames = [chain.add(text) for text in texts]
    for start in starts:
        begin = last_key(start)
        client = ClientWindow(CHAIN_WINDOW_BITS)
        client.read(lone_frame(b"what another generation said before " * 99))
        for n in range(begin, len(texts)):
            assert client.read(frames[n]) == [texts[n]]
            for _, aside in (each for each in asides if each[0] == n):
                assert client.read(deflate.text_frame(aside)) == [aside]


def test_a_client_that_begins_between_two_key_frames_cannot_read_the_chain() -> None:
    """The rule that readers begin at key frames is needed."""
    chain = FrameChain()
    frames = [chain.add(text) for text in tokens(2 * KEY_EVERY)]

    with pytest.raises(zlib.error):
        ClientWindow().read(frames[KEY_EVERY + 5])


def test_key_frames_are_dense_at_the_start() -> None:
    keys = [n for n in range(100) if last_key(n) == n]

    assert keys == [0, 1, 2, 4, 8, 16, 32, 64, 96]
    assert all(last_key(n) == max(key for key in keys if key <= n) for n in range(100))


def test_a_long_frame_of_a_chain_is_plain_and_changes_no_window() -> None:
    long = b"x" * (CHAINED_BYTES_MAX + 1)
    texts, chain, client = [], FrameChain(), ClientWindow(CHAIN_WINDOW_BITS)
    for n, text in enumerate(tokens(3 * KEY_EVERY)):
        texts += [long, text] if n % 5 == 0 else [text]
    frames = b"".join(map(chain.add, texts))

    assert client.read(frames) == texts
    assert client.compressed == 3 * KEY_EVERY


@given(st.text("ab流 ", max_size=4_000).map(str.encode), st.integers(9, 15))
def test_a_lone_frame_is_never_longer_than_plain_and_a_small_window_reads_it(
    text: bytes, bits: int
) -> None:
    client = ClientWindow(bits)
    compressed = compressed_or_none(text, bits)
    framed = deflate.text_frame(text)
    if compressed is not None:
        assert len(text) >= COMPRESSED_BYTES_MIN and len(compressed) < len(text)
        framed = deflate.text_frame(compressed, is_compressed=True)

    assert client.read(framed) == [text]
    assert len(lone_frame(text)) <= len(deflate.text_frame(text))


def test_a_large_message_is_compressed_in_steps() -> None:
    text = b"".join(tokens(20_000))
    steps = list(compress_steps(text, 15))

    assert len(steps) > len(text) / deflate.COMPRESSED_STEP_BYTES
    assert zlib.decompressobj(-15).decompress(b"".join(steps) + TAIL) == text


# The client's messages


def inflate(pieces: list[bytes]) -> bytes:
    content = bytearray()
    inflater = Inflater(content)
    for piece in pieces:
        for inflated in inflater.feed(piece):
            assert 0 < len(inflated) <= INFLATED_BYTES
            content += inflated
    for inflated in inflater.finish():
        content += inflated
    return bytes(content)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in zip(ends, ends[1:], strict=False)]


FLUSHES = (zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_PARTIAL_FLUSH)


@given(
    st.lists(st.tuples(st.binary(max_size=300), st.sampled_from(FLUSHES)), max_size=6),
    st.integers(0, 9), st.integers(9, 15), st.lists(st.integers(0, 10_000), max_size=6),
)  # fmt: skip
def test_whatever_a_compressor_writes_is_inflated_however_it_is_cut(
    parts: list[tuple[bytes, int]], level: int, bits: int, places: list[int]
) -> None:
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
    data = b"".join(compressor.compress(part) + compressor.flush(mode) for part, mode in parts)
    data += compressor.flush(zlib.Z_SYNC_FLUSH)

    assert inflate(cut(data[:-4], places)) == b"".join(part for part, _ in parts)


def test_sixty_four_kilobytes_exactly_and_zeros_by_the_megabyte_are_inflated() -> None:
    for size in (INFLATED_BYTES - 1, INFLATED_BYTES, INFLATED_BYTES + 1, 5_000_000):
        compressor = zlib.compressobj(wbits=-15)
        data = compressor.compress(bytes(size)) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert inflate([data[:-4]]) == bytes(size)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (bytes.fromhex("f248cdc9c90700"), b"Hello"),  # the examples of RFC 7692, 7.2.3
        (bytes.fromhex("f3 48 cd c9 c9 07 00 00"), b"Hello"),
        (bytes.fromhex("f2 48 05 00 00 00 ff ff ca c9 c9 07 00"), b"Hello"),
        (bytes.fromhex("00 05 00 fa ff 48 65 6c 6c 6f 00"), b"Hello"),
        (b"\x00", b""),
        (b"", b""),
        (bytes.fromhex("f3 48 cd c9 c9 07 00"), b"Hello"),  # no block behind the final one
    ],
    ids=["one block", "final block", "two blocks", "stored", "empty", "no bytes", "only final"],
)
def test_the_examples_of_the_rfc_are_inflated(data: bytes, text: bytes) -> None:
    for places in ([], [1], [3, 5], list(range(len(data)))):
        assert inflate(cut(data, places)) == text


def test_blocks_behind_a_final_block_may_refer_to_what_is_before_it() -> None:
    text = b"The quick brown fox jumps over the lazy dog. " * 3
    first = zlib.compressobj(wbits=-15)
    second = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=text)
    data = first.compress(text) + first.flush()
    data += second.compress(text) + second.flush(zlib.Z_SYNC_FLUSH)

    assert inflate([data[:-4]]) == text + text


def test_a_message_of_very_many_final_blocks_is_invalid() -> None:
    assert inflate([b"\x03\x00" * FINAL_BLOCKS_MAX]) == b""
    with pytest.raises(InvalidDeflate):
        inflate([b"\x03\x00" * (FINAL_BLOCKS_MAX + 2)])


@given(st.binary(min_size=1, max_size=200), st.integers(1, 1_000))
def test_a_message_that_is_cut_off_is_invalid_or_a_prefix(text: bytes, missing: int) -> None:
    compressor = zlib.compressobj(wbits=-15)
    data = (compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    try:
        inflated = inflate([data[: max(0, len(data) - missing)]])
    except InvalidDeflate:
        return
    assert text.startswith(inflated) and not inflated, "a whole block was lost, and only that"


@given(st.binary(max_size=300))
def test_any_bytes_are_inflated_or_invalid(data: bytes) -> None:
    try:
        inflate([data])
    except InvalidDeflate:
        pass
