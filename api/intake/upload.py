"""Reads one multipart/form-data upload from the request body, piece by piece.

`MultipartForm` does no I/O: it takes the body's bytes and returns the file's bytes. Invariants:
every malformed body is answered with a 4xx; only the short fields are kept in memory. The parts may
come in any order, so the fields are complete only when the body has ended. This module does not
know where files are stored.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.types import Receive

from api.edge.transfer_limit import TransferTurn
from api.errors import request_error
from api.intake.batch_members import FILE_EXPIRES_S_MAX, FILE_EXPIRES_S_MIN
from api.intake.body import invalid_request
from api.intake.content_coding import BodyDecoder
from shared.errors import RequestError, TooLarge

# Bytes of a body outside the file. There the parser runs Python code for every byte.
FORM_BYTES_MAX = 65_536
FEED_BYTES = 65_536  # passed to the parser at a time; `FORM_BYTES_MAX` is checked in between
PARTS_MAX = 32
PART_HEADERS_MAX = 8
PART_HEADER_BYTES_MAX = 4_096
FIELD_BYTES_MAX = 1_024
FILENAME_CHARACTERS_MAX = 255
PURPOSES = ("batch", "user_data", "assistants", "fine-tune", "vision", "evals")
FILE = "file"
FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
# Characters that control a terminal, break a line, or change the direction of text.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')
_EXTENDED = re.compile(
    rb"; *filename\* *= *(utf-8|iso-8859-1)'[A-Za-z0-9-]*'([^\s;\"]+)", re.IGNORECASE
)
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class MultipartForm:
    """The parser of one upload.

    Args:
        boundary: the parameter of the content type.

    Attributes:
        filename: cleaned by `clean_filename`; "" until the file's part begins.

    Raises:
        RequestError: 400, the boundary is too long.
    """

    def __init__(self, boundary: bytes) -> None:
        # The parser logs a warning for each malformed body, so a client could fill the log.
        logging.getLogger("python_multipart").setLevel(logging.ERROR)
        self.filename = ""
        self._values: dict[str, bytearray] = {}
        self._pieces: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._header_name = self._header_value = b""
        self._name = ""  # the name of the present part
        self._parts = self._other_bytes = 0
        self._has_file = self._has_file_bytes = self._is_complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._read_header_name,
                    "on_header_value": self._read_header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._read_data,
                    "on_end": self._end,
                },
                max_header_count=PART_HEADERS_MAX,
                max_header_size=PART_HEADER_BYTES_MAX,
            )
        except FormParserError:
            raise malformed("its boundary is too long") from None

    def feed(self, data: bytes) -> list[bytes]:
        """Parse the next bytes of the body.

        Returns:
            The bytes of the file in `data`, in order.

        Raises:
            RequestError: 400 malformed; 422 a second file, a repeated field, or a field that is too
                long.
        """
        for start in range(0, len(data), FEED_BYTES):
            piece = data[start : start + FEED_BYTES]
            try:
                self._parser.write(piece)
            except FormParserError as exc:
                raise malformed(str(exc)) from None
            self._other_bytes += len(piece)
            if self._other_bytes > FORM_BYTES_MAX:
                raise malformed(f"more than {FORM_BYTES_MAX} bytes are outside the file")
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> None:
        """Check, after the end of the body, that the form is complete and its fields are valid.

        Raises:
            RequestError: 400 the last boundary is missing; 422 no file, an empty file, or a wrong
                field.
        """
        if not self._is_complete:
            raise malformed("it stops before its last boundary")
        if not self._has_file:
            raise invalid_request("file is missing")
        if not self._has_file_bytes:
            raise invalid_request("the file is empty")
        self.check_fields()

    def check_fields(self) -> None:
        """Check the fields that have been read.

        Raises:
            RequestError: 422, a wrong purpose or expiry.
        """
        if self.purpose not in PURPOSES:
            raise invalid_request(f"purpose must be one of {', '.join(PURPOSES)}")
        _ = self.expires_s

    @property
    def purpose(self) -> str:
        return self._value("purpose")

    @property
    def expires_s(self) -> float | None:
        """Return how long to keep the file from now on, s; None: the form does not say.

        Raises:
            RequestError: 422, a wrong anchor or number of seconds.
        """
        anchor, seconds = self._value(FIELDS[1]), self._value(FIELDS[2])
        if not anchor and not seconds:
            return None
        if anchor != "created_at":
            raise invalid_request("expires_after[anchor] must be created_at")
        is_number = _SECONDS.fullmatch(seconds) is not None
        if not is_number or not FILE_EXPIRES_S_MIN <= int(seconds) <= FILE_EXPIRES_S_MAX:
            raise invalid_request(
                f"expires_after[seconds] must be from {FILE_EXPIRES_S_MIN} to {FILE_EXPIRES_S_MAX}"
            )
        return float(seconds)

    def _value(self, name: str) -> str:
        return self._values.get(name, b"").decode("utf-8", "replace")

    # Called by the parser

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise malformed(f"it has more than {PARTS_MAX} parts")
        self._headers = {}

    def _read_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _read_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition"))
        if disposition != b"form-data" or b"name" not in options:
            raise malformed("a part has no content-disposition: form-data with a name")
        if self._headers.get(b"content-transfer-encoding", b"binary").lower() not in (
            b"binary", b"8bit", b"7bit",
        ):  # fmt: skip
            raise malformed("a part must have no content-transfer-encoding")
        self._name = options[b"name"].decode("utf-8", "replace")
        if self._name == FILE:
            if self._has_file:
                raise invalid_request("an upload has exactly one file")
            self._has_file = True
            name = extended_filename(self._headers[b"content-disposition"])
            self.filename = clean_filename(name or options.get(b"filename", b""))
        elif self._name in FIELDS:
            if self._name in self._values:
                raise invalid_request(f"{self._name} is given twice")
            self._values[self._name] = bytearray()

    def _read_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE:
            self._has_file_bytes = self._has_file_bytes or end > start
            self._other_bytes -= end - start
            self._pieces.append(data[start:end])
        elif (value := self._values.get(self._name)) is not None:
            value += data[start:end]
            if len(value) > FIELD_BYTES_MAX:
                raise invalid_request(f"{self._name} is longer than {FIELD_BYTES_MAX} bytes")

    def _end(self) -> None:
        self._is_complete = True


def announced_bytes(headers: Headers) -> int:
    """Return Content-Length, cut to its first 20 digits; 0: absent or malformed."""
    announced = headers.get("content-length", "")
    return int(announced[:20]) if announced.isascii() and announced.isdigit() else 0


def open_form(headers: Headers, *, bytes_max: int) -> MultipartForm:
    """Return the parser for an upload with these headers.

    Args:
        bytes_max: of the file.

    Raises:
        RequestError: 415 not multipart/form-data; 400 no boundary.
        TooLarge: Content-Length is larger than any allowed form.
    """
    kind, options = parse_options_header(headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise request_error("unsupported_media_type", "send content-type: multipart/form-data")
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise malformed("its content type names no boundary")
    if announced_bytes(headers) > bytes_max + FORM_BYTES_MAX:
        raise TooLarge(f"the file is larger than {bytes_max} bytes")
    return MultipartForm(boundary)


async def file_pieces(
    form: MultipartForm, receive: Receive, turn: TransferTurn, decoder: BodyDecoder
) -> AsyncIterator[bytes]:
    """Yield the file's bytes as they arrive. If it ends without an error, the form is complete.

    The caller has to limit the size. All bytes of the body, also those of fields, count as progress
    for `turn`, which refuses a client that is too slow.

    Args:
        decoder: undoes the Content-Encoding of the body. A piece of the body may stand for many
            pieces of the file, so the caller has its limit between any two of them.

    Raises:
        RequestError: 400 or 422, as `MultipartForm` and `BodyDecoder`; 408, the body arrives too
            slowly, or the client disconnected.
    """
    received, has_more = 0, True
    turn.moved = lambda: received
    while has_more:
        async with turn.waiting():
            message = await receive()
        if message["type"] == "http.disconnect":
            raise request_error("request_timeout", "the client left before its body was complete")
        body = message.get("body", b"")
        received += len(body)
        has_more = message.get("more_body", False)
        for decoded in decoder.feed(body):
            for piece in form.feed(decoded):
                yield piece
    decoder.finish()
    form.finish()


def extended_filename(disposition: bytes) -> bytes:
    """Return the name in `filename*=utf-8''…` as UTF-8; b"": there is none that can be read.

    RFC 7578 forbids this form and clients send it: older `requests` in place of `filename`, .NET
    beside a `filename` in another encoding. As in RFC 6266, it wins over `filename`.
    """
    found = _EXTENDED.search(_QUOTED.sub(b'""', disposition))
    if found is None:
        return b""
    charset = "utf-8" if found[1].lower() == b"utf-8" else "latin-1"
    return unquote_to_bytes(found[2]).decode(charset, "replace").encode()


def clean_filename(raw: bytes) -> str:
    """Return the last segment of a file name without `_UNSAFE` characters; if empty, "file"."""
    name = raw.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    name = _UNSAFE.sub("", name).strip()[:FILENAME_CHARACTERS_MAX]
    return name if name.strip(".") else "file"


def malformed(why: str) -> RequestError:
    """Return the 400 error for a body that is not a multipart form."""
    return request_error("invalid_multipart", f"the body is no multipart form: {why[:200]}")
