"""Uploads: pieces of any size give the same result, and a malformed body gives a 4xx."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from api.edge.transfer_limit import TransferTurn
from api.intake.content_coding import BodyDecoder
from api.intake.upload import (
    FIELD_BYTES_MAX,
    FORM_BYTES_MAX,
    PARTS_MAX,
    MultipartForm,
    clean_filename,
    file_pieces,
    open_form,
)
from shared.errors import RequestError

BOUNDARY = b"b0undary"
PURPOSE = b'form-data; name="purpose"'
FILE = b'form-data; name="file"; filename="a.jsonl"'
ANCHOR = b'form-data; name="expires_after[anchor]"'
SECONDS = b'form-data; name="expires_after[seconds]"'


def part(disposition: bytes, data: bytes, *headers: bytes) -> bytes:
    lines = [b"--" + BOUNDARY, b"Content-Disposition: " + disposition, *headers, b"", data, b""]
    return b"\r\n".join(lines)


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


def read(raw: bytes, *cuts: int) -> tuple[MultipartForm, bytes]:
    form, data = MultipartForm(BOUNDARY), b""
    places = [0, *sorted(cuts), len(raw)]
    for start, stop in zip(places, places[1:], strict=False):
        data += b"".join(form.feed(raw[start:stop]))
    form.finish()
    return form, data


def refused(raw: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(raw)
    return caught.value


PARTS = [
    part(PURPOSE, b"batch"),
    part(FILE, b"one\r\n--b0undar\r\ntwo", b"Content-Type: application/jsonl"),
    part(ANCHOR, b"created_at"),
    part(SECONDS, b"3600"),
    part(b'form-data; name="unknown"', b"x" * 5_000),
]


@given(order=st.permutations(PARTS), cuts=st.lists(st.integers(0, 6_000), max_size=6))
def test_parts_may_come_in_any_order_and_in_any_pieces(order: list[bytes], cuts: list[int]) -> None:
    raw = body(*order)
    form, data = read(raw, *(min(cut, len(raw)) for cut in cuts))

    assert data == b"one\r\n--b0undar\r\ntwo"
    assert (form.filename, form.purpose, form.expires_s) == ("a.jsonl", "batch", 3_600)


def test_a_body_may_arrive_byte_by_byte() -> None:
    raw = b"\r\n" + body(*PARTS[:2]) + b"epilogue"
    form, data = read(raw, *range(len(raw)))

    assert data == b"one\r\n--b0undar\r\ntwo"
    assert form.expires_s is None


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_any_bytes_give_a_form_or_a_4xx(noise: bytes, head: bytes) -> None:
    for raw in (noise, b"--b0undary\r\n" + noise, body(part(FILE, noise, head)), PARTS[1] + noise):
        form = MultipartForm(BOUNDARY)
        try:
            form.feed(raw)
            form.finish()
        except RequestError as exc:
            assert 400 <= exc.status < 500


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"hello", 400),
        (PARTS[0] + PARTS[1], 400),  # the last boundary is missing
        (body(*PARTS[:2])[:-6], 400),
        (body(), 422),  # no part at all
        (body(PARTS[0]), 422),  # no file
        (body(PARTS[1]), 422),  # no purpose
        (body(PARTS[0], PARTS[1], PARTS[1]), 422),  # two files
        (body(PARTS[0], PARTS[0], PARTS[1]), 422),
        (body(PARTS[0], part(FILE, b"")), 422),  # empty
        (body(part(PURPOSE, b"mischief"), PARTS[1]), 422),
        (body(part(PURPOSE, b"\xff"), PARTS[1]), 422),
        (body(part(PURPOSE, b"b" * (FIELD_BYTES_MAX + 1)), PARTS[1]), 422),
        (body(*PARTS[:3]), 422),  # an anchor without seconds
        (body(*PARTS[:2], PARTS[3]), 422),
        (body(*PARTS[:3], part(SECONDS, b"3599")), 422),
        (body(*PARTS[:3], part(SECONDS, b"2592001")), 422),
        (body(*PARTS[:3], part(SECONDS, b"1e5")), 422),
        (body(*PARTS[:3], part(SECONDS, "٣٦٠٠".encode())), 422),
        (body(*PARTS[:2], part(ANCHOR, b"now"), PARTS[3]), 422),
        (body(part(b"attachment", b"x")), 400),
        (body(part(b"form-data", b"x")), 400),
        (body(part(FILE, b"eA==", b"Content-Transfer-Encoding: base64"), PARTS[0]), 400),
        (body(part(FILE, b"x", b"A" * 5_000 + b": x")), 400),
        (body(part(FILE, b"x", b"A: " + b"x" * 5_000)), 400),
        (body(part(FILE, b"x", *[b"A: x"] * 20)), 400),
        (body(part(FILE, b"x", b"no colon")), 400),
        (body(*[part(b'form-data; name="x"', b"")] * (PARTS_MAX + 1)), 400),
        (b"--" + BOUNDARY + b"\r\n\r\nno headers\r\n", 400),
    ],
)
def test_a_malformed_or_wrong_form_is_refused(raw: bytes, status: int) -> None:
    error = refused(raw)

    assert error.status == status, error.message
    assert error.code == ("invalid_multipart" if status == 400 else "invalid_request")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"content-type": "application/json"}, 415),
        ({"content-type": "multipart/mixed; boundary=x"}, 415),
        ({"content-type": "multipart/form-data"}, 400),
        ({"content-type": "multipart/form-data; boundary="}, 400),
        ({"content-type": "multipart/form-data; boundary=" + "b" * 300}, 400),
        ({"content-type": "multipart/form-data; boundary=b", "content-length": "1" * 30}, 413),
        ({"content-type": "multipart/form-data; boundary=b", "content-length": "66537"}, 413),
    ],
)
def test_wrong_headers_are_refused(headers: Mapping[str, str], status: int) -> None:
    with pytest.raises(RequestError) as caught:
        open_form(Headers(headers), bytes_max=1_000)

    assert caught.value.status == status


def test_valid_headers_are_accepted() -> None:
    kind = 'Multipart/Form-Data; charset=utf-8; boundary="b 1"'
    open_form(Headers({"content-type": kind, "content-length": "66536"}), bytes_max=1_000)


async def test_an_endless_body_is_refused() -> None:
    messages = [{"type": "http.request", "body": b"\r\n" * 1_000, "more_body": True}] * 1_000

    async def receive() -> dict[str, object]:
        return messages.pop()

    with pytest.raises(RequestError) as caught:
        async for _ in file_pieces(
            MultipartForm(BOUNDARY), receive, TransferTurn(lambda: False), BodyDecoder("")
        ):
            pass
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n",
        b"--b0undary\r\nA: ",
        body(PARTS[0]),
        part(b'form-data; name="unknown"', b"")[:-2],
        part(FILE, b"x") + b"--b0undary",  # where spaces may follow
    ],
)
def test_bytes_outside_the_file_are_limited(head: bytes) -> None:
    """Outside the file the parser runs byte by byte in Python, which blocks the event loop."""
    form = MultipartForm(BOUNDARY)
    form.feed(head)
    with pytest.raises(RequestError) as caught:
        for _ in range(FORM_BYTES_MAX // 1_000 + 1):
            form.feed((b"\r\n" if head == b"\r\n" else b" ") * 1_000)
    assert caught.value.status == 400


def test_the_file_itself_may_be_long() -> None:
    form = MultipartForm(BOUNDARY)
    form.feed(part(FILE, b"")[:-2])
    count = sum(len(piece) for _ in range(20) for piece in form.feed(b" " * FORM_BYTES_MAX))
    assert count == 20 * FORM_BYTES_MAX


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"../../etc/passwd", "passwd"),
        (rb"C:\x\y.jsonl", "y.jsonl"),
        (b"a\x00\x1b[2Jb\r\n", "a[2Jb"),
        ("r\u202egpj.exe".encode(), "rgpj.exe"),
        (b"\xff.txt", "\ufffd.txt"),
        ("ä" * 300, "ä" * 255),
        (b"..", "file"),
        (b"", "file"),
        (b"/", "file"),
    ],
)
def test_file_names_are_made_harmless(raw: bytes | str, expected: str) -> None:
    assert clean_filename(raw.encode() if isinstance(raw, str) else raw) == expected


@pytest.mark.parametrize(
    ("disposition", "expected"),
    [
        (b"filename*=utf-8''b%C3%BCcher.jsonl", "bücher.jsonl"),
        (b"filename*=UTF-8'de'%e2%82%ac.jsonl", "€.jsonl"),
        (b"filename=\"=?utf-8?B?YsO8?=\"; filename*=utf-8''b%C3%BC", "bü"),
        (b"filename*=iso-8859-1''b%FC.txt; filename=x", "bü.txt"),
        (b"FileName* = utf-8''a.txt", "a.txt"),
        (b"filename*=utf-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
        (b"filename*=utf-8''%FF%00a", "\ufffda"),
        (b"filename*=utf-16''x; filename=plain", "plain"),
        (b"filename*=nonsense; filename=plain", "plain"),
        (b"filename=\"a; filename*=utf-8''b\"", "a; filename*=utf-8''b"),
    ],
)
def test_the_extended_form_of_a_file_name(disposition: bytes, expected: str) -> None:
    """As requests, .NET and others send it."""
    form = MultipartForm(BOUNDARY)
    form.feed(part(b'form-data; name="file"; ' + disposition, b"x"))

    assert form.filename == expected
