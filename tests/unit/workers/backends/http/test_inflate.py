"""Compressed bodies as servers send them, cut at every byte."""

from __future__ import annotations

import gzip
import time
import zlib

import pytest

from workers.backends.http.inflate import INFLATED_BYTES_MAX, InflateError, Inflater, coding_of

TEXT = b'data: {"a":1}\n\n' * 40
HALF = len(TEXT) // 2


def packed(data: bytes, window: int) -> bytes:
    compress = zlib.compressobj(wbits=window)
    return compress.compress(data) + compress.flush()


FORMS = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "x-gzip": ("x-gzip", gzip.compress(TEXT)),
    "two members": ("gzip", gzip.compress(TEXT[:HALF]) + gzip.compress(TEXT[HALF:])),
    "a member for each event": ("gzip", gzip.compress(TEXT[:15]) * 40),
    "an empty member first": ("gzip", gzip.compress(b"") + gzip.compress(TEXT)),
    "padding": ("gzip", gzip.compress(TEXT) + bytes(600)),
    "bytes after the last member": ("gzip", gzip.compress(TEXT) + b"x" + gzip.compress(b"no")),
    "zlib as deflate": ("deflate", zlib.compress(TEXT)),
    "zlib with a small window": ("deflate", packed(TEXT, 9)),
    "raw deflate": ("deflate", packed(TEXT, -15)),
    "gzip as deflate": ("deflate", gzip.compress(TEXT)),
    "zlib as gzip": ("gzip", zlib.compress(TEXT)),
}
_STORED = zlib.compressobj(0, wbits=-15)
FORMS["raw deflate, not compressed"] = ("deflate", _STORED.compress(TEXT) + _STORED.flush())


@pytest.mark.parametrize("size", [1, 2, 7, 100_000])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_text_however_it_is_cut(form: str, size: int) -> None:
    coding, data = FORMS[form]
    inflater = Inflater(coding)

    found = [inflater.feed(data[at : at + size]) for at in range(0, len(data), size)]

    assert b"".join(found) == TEXT


def test_what_has_arrived_is_given_at_once() -> None:
    compress = zlib.compressobj(wbits=31)
    inflater = Inflater("gzip")
    for event in (b"data: 1\n\n", b"data: 2\n\n"):
        piece = compress.compress(event) + compress.flush(zlib.Z_SYNC_FLUSH)
        assert inflater.feed(piece) == event


@pytest.mark.parametrize(
    ("coding", "data", "said"),
    [
        ("gzip", b"data: hello\n\n", "the answer is not gzip"),
        ("deflate", b"\x07\xff\xff", "the answer is not deflate"),
        ("gzip", gzip.compress(TEXT)[:-8] + bytes(8), "the answer is not gzip"),
        ("gzip", gzip.compress(bytes(INFLATED_BYTES_MAX + 1)), "inflates too much"),
        ("gzip", gzip.compress(bytes(INFLATED_BYTES_MAX // 3)) * 4, "inflates too much"),
    ],
    ids=["plain", "not deflate", "bad sum", "one bomb", "four bombs"],
)
def test_bodies_that_are_refused(coding: str, data: bytes, said: str) -> None:
    with pytest.raises(InflateError, match=said):
        Inflater(coding).feed(data)


def test_thousands_of_members_in_one_read_do_not_hold_the_loop() -> None:
    data = gzip.compress(b"") * 13_000  # 260 kB
    began = time.thread_time()

    assert Inflater("gzip").feed(data) == b""

    assert time.thread_time() - began < 1.0  # 0.04 s; copies of the whole rest take 2 s


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", ""),
        ("identity", ""),
        ("GZIP", "gzip"),
        ("identity, gzip", "gzip"),
        (" x-gzip ", "x-gzip"),
        ("br", "br"),
        ("gzip, deflate", "gzip, deflate"),
    ],
)
def test_the_coding_of_a_header(header: str, coding: str) -> None:
    assert coding_of(header) == coding
