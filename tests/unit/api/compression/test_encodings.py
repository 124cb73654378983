"""Pieces of each encoding, in the orders in which a body may have them."""

from __future__ import annotations

import random
import zlib
from importlib import import_module
from typing import Any

import pytest
import zstandard

from api.compression import encodings as module
from api.compression.encoding import COMPRESSED_BYTES_MAX
from api.compression.encodings import PRIVATE_CONTEXTS_MAX, Encodings
from shared.errors import ConfigurationError
from tests.support.decoders import DECODERS, decode

NAMES = ("gzip", "zstd", "br")
SHARED = ("gzip",)
LARGE = random.Random(1).randbytes(COMPRESSED_BYTES_MAX + 1)
SIZES = [b"x", b"y" * 300, LARGE, b'{"text":"\xe4\xbd\xa0"}\n' * 50]


def closing_of(encoding: Any, plain: bytes) -> bytes:
    return bytes(encoding.closing(zlib.crc32(plain), len(plain)))


@pytest.mark.parametrize("name", SHARED)
def test_fresh_pieces_and_pieces_of_a_context_follow_one_another(name: str) -> None:
    encoding: Any = Encodings((name,)).by_name[name]
    body, plain = encoding.opening, b""
    for _ in range(2):
        context = encoding.context()
        for part in SIZES:
            body += encoding.fresh(part)
            plain += part
        for part in [*SIZES, *SIZES]:
            body += context.piece(part)
            plain += part
        context.restart()
        body += encoding.fresh(b"aside") + context.piece(b"a key frame")
        plain += b"asidea key frame"

    assert decode(name, body + closing_of(encoding, plain)) == plain


@pytest.mark.parametrize("name", NAMES)
def test_each_piece_is_decoded_at_once(name: str) -> None:
    encoding: Any = Encodings((name,)).by_name[name]
    context, decoder = encoding.context(), DECODERS[name]()
    decoder.feed(encoding.opening)
    for part in SIZES:
        assert decoder.feed(context.piece(part)) == part
        assert not decoder.is_complete
        if name in SHARED:
            assert decoder.feed(encoding.fresh(part)) == part
            context.restart()


@pytest.mark.parametrize("name", NAMES)
def test_a_body_without_bytes_is_complete(name: str) -> None:
    encoding: Any = Encodings((name,)).by_name[name]
    assert decode(name, encoding.opening + encoding.context().closing(0, 0)) == b""


@pytest.mark.parametrize("name", NAMES)
def test_a_context_saves_most_of_an_event(name: str) -> None:
    encoding: Any = Encodings((name,)).by_name[name]
    context = encoding.context()
    events = [b'id: 1-%d\nevent: token\ndata: {"text":" w%x"}\n\n' % (n, n * n) for n in range(200)]
    ratio = sum(len(context.piece(event)) for event in events) / len(b"".join(events))
    assert ratio < 0.5


def test_pieces_of_gzip_end_on_a_whole_byte_after_a_flush() -> None:
    encoding: Any = Encodings(("gzip",)).by_name["gzip"]
    for piece in (encoding.fresh(b"x"), encoding.fresh(b"x" * 999), encoding.context().piece(b"x")):
        assert piece.endswith(b"\x00\x00\xff\xff"), "Go's decoder gives its bytes out only here"


def test_a_body_in_zstd_is_one_frame() -> None:
    encoding: Any = Encodings(("zstd",)).by_name["zstd"]
    context, decoder = encoding.context(), zstandard.ZstdDecompressor().decompressobj()
    for part in SIZES:
        decoder.decompress(context.piece(part))
        assert not decoder.eof, "Node.js drops what follows the first frame"
    decoder.decompress(context.closing(0, 0))
    assert decoder.eof


def test_a_missing_package_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        if name.endswith("zstd_encoding"):
            raise ImportError(name)
        return import_module(name)

    monkeypatch.setattr(module, "import_module", absent)
    with pytest.raises(ConfigurationError, match=r"zstd.*pip install 'tailrace\[compression\]'"):
        Encodings(("gzip", "zstd"))
    assert list(Encodings(("br", "gzip")).by_name) == ["br", "gzip"]


def test_the_number_of_private_compressors_is_bounded() -> None:
    encodings = Encodings()
    bodies = [type("Body", (), {})() for _ in range(PRIVATE_CONTEXTS_MAX)]
    for body in bodies:
        assert encodings.has_room
        encodings.private.add(body)
    assert not encodings.has_room
    del body, bodies[0]  # also a body that nobody closed gives its room back
    assert encodings.has_room
