"""Encoded request bodies: what is decoded, what is refused, and what a bomb costs."""

from __future__ import annotations

import gzip
import zlib

import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from api.intake.arriving_body import read_body
from shared.errors import RequestError

BODY = b'{"prompt":"' + b"x" * 500 + b'"}'
BYTES_MAX = 4_000


def raw_deflate(body: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(body) + encoder.flush()


async def read(sent: bytes, coding: str) -> bytes:
    async def receive() -> Message:
        return {"type": "http.request", "body": sent, "more_body": False}

    headers = Headers({"content-type": "application/json", "content-encoding": coding})
    return await read_body(headers, receive, bytes_max=BYTES_MAX)


def name(value: object) -> str:
    """Name a case without its bytes: gzip writes the time into them."""
    return "body" if isinstance(value, bytes) else str(value)


@pytest.mark.parametrize(
    ("coding", "sent"),
    [
        ("identity", BODY),
        ("", BODY),
        ("gzip", gzip.compress(BODY)),
        ("GZIP", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        ("gzip", gzip.compress(BODY[:99]) + gzip.compress(BODY[99:])),
        ("deflate", zlib.compress(BODY)),
        ("deflate", raw_deflate(BODY)),
    ],
    ids=name,
)
async def test_an_encoded_body_is_decoded(coding: str, sent: bytes) -> None:
    assert await read(sent, coding) == BODY


@pytest.mark.parametrize(
    ("coding", "sent", "status"),
    [
        ("br", BODY, 415),
        ("zstd", BODY, 415),
        ("gzip, gzip", gzip.compress(gzip.compress(BODY)), 415),
        ("gzip", BODY, 400),
        ("gzip", b"", 400),
        ("gzip", gzip.compress(BODY)[:-1], 400),
        ("gzip", gzip.compress(BODY) + b"behind", 400),
        ("gzip", gzip.compress(b"") * 101, 400),
        ("deflate", zlib.compress(BODY) + b"behind", 400),
        ("gzip", gzip.compress(b"x" * BYTES_MAX) + gzip.compress(b"x"), 413),
        ("gzip", gzip.compress(b"x" * 500_000), 413),
        ("deflate", raw_deflate(b"x" * 500_000), 413),
    ],
    ids=name,
)
async def test_a_wrong_or_too_large_encoded_body_is_refused(
    coding: str, sent: bytes, status: int
) -> None:
    with pytest.raises(RequestError) as refused:
        await read(sent, coding)

    assert refused.value.status == status
