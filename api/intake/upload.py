"""Read one multipart/form-data upload from the request body as it arrives, in pieces.

`MultipartForm` does no I/O: it takes the body's bytes and gives the file's bytes. Every malformed
body is a 4xx. The parts may come in any order, so the fields are complete only when the body has
ended. Only the short fields are kept in memory. This module does not know where files are stored.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.types import Receive

from api.edge.transfer_limit import Turn
from api.errors import request_error
from api.intake.body import wrong
from shared.errors import RequestError, TooLarge

FORM_BYTES_MAX = 65_536  # of a body, beside the file: there the parser looks at every byte
FED_AT_ONCE = 65_536
PARTS_MAX = 32
PART_HEADERS_MAX = 8
PART_HEADER_BYTES_MAX = 4_096
FIELD_BYTES_MAX = 1_024
FILENAME_CHARACTERS_MAX = 255
PURPOSES = ("batch", "user_data", "assistants", "fine-tune", "vision", "evals")
EXPIRES_S_MIN, EXPIRES_S_MAX = 3_600, 2_592_000
FILE = "file"
FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class MultipartForm:
    """The body of one upload.

    Args:
        boundary: as the content type has it.
    """

    def __init__(self, boundary: bytes) -> None:
        # It warns of what clients send: whoever sends those would write our log.
        logging.getLogger("python_multipart").setLevel(logging.ERROR)
        self.filename = ""
        self._values: dict[str, bytearray] = {}
        self._pieces: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._header_name = self._header_value = b""
        self._name = ""  # of the part that is being read
        self._parts = self._other_bytes = 0
        self._has_file = self._has_bytes = self._is_whole = False
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
        """Read on; returns what of it belongs to the file.

        Raises:
            RequestError: 400 no multipart, 422 parts that are not wanted.
        """
        for start in range(0, len(data), FED_AT_ONCE):
            fed = data[start : start + FED_AT_ONCE]
            try:
                self._parser.write(fed)
            except FormParserError as exc:
                raise malformed(str(exc)) from None
            self._other_bytes += len(fed)
            if self._other_bytes > FORM_BYTES_MAX:
                raise malformed(f"more than {FORM_BYTES_MAX} bytes are not of the file")
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> None:
        """The body has ended: see that everything is there, and that the fields can be read.

        Raises:
            RequestError: 400, 422.
        """
        if not self._is_whole:
            raise malformed("it stops before its last boundary")
        if not self._has_file:
            raise wrong("file is missing")
        if not self._has_bytes:
            raise wrong("the file is empty")
        self.check_fields()

    def check_fields(self) -> None:
        """Raises: RequestError: 422."""
        if self.purpose not in PURPOSES:
            raise wrong(f"purpose must be one of {', '.join(PURPOSES)}")
        _ = self.expires_s

    @property
    def purpose(self) -> str:
        return self._value("purpose")

    @property
    def expires_s(self) -> float | None:
        """How long from now the file is wanted; None: nothing is said."""
        anchor, seconds = self._value(FIELDS[1]), self._value(FIELDS[2])
        if not anchor and not seconds:
            return None
        if anchor != "created_at":
            raise wrong("expires_after[anchor] must be created_at")
        is_number = _SECONDS.fullmatch(seconds) is not None
        if not is_number or not EXPIRES_S_MIN <= int(seconds) <= EXPIRES_S_MAX:
            raise wrong(f"expires_after[seconds] must be from {EXPIRES_S_MIN} to {EXPIRES_S_MAX}")
        return float(seconds)

    def _value(self, name: str) -> str:
        return self._values.get(name, b"").decode("utf-8", "replace")

    # What the parser calls

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
            raise malformed("parts are sent as they are, without a content-transfer-encoding")
        self._name = options[b"name"].decode("utf-8", "replace")
        if self._name == FILE:
            if self._has_file:
                raise wrong("one upload is one file")
            self._has_file = True
            self.filename = clean_filename(options.get(b"filename", b""))
        elif self._name in FIELDS:
            if self._name in self._values:
                raise wrong(f"{self._name} is given twice")
            self._values[self._name] = bytearray()

    def _read_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE:
            self._has_bytes = self._has_bytes or end > start
            self._other_bytes -= end - start
            self._pieces.append(data[start:end])
        elif (value := self._values.get(self._name)) is not None:
            value += data[start:end]
            if len(value) > FIELD_BYTES_MAX:
                raise wrong(f"{self._name} is longer than {FIELD_BYTES_MAX} bytes")

    def _end(self) -> None:
        self._is_whole = True


def announced_bytes(headers: Headers) -> int:
    """Return how large a body says it is, at most the 20 first digits of it; 0: it does not say."""
    announced = headers.get("content-length", "")
    return int(announced[:20]) if announced.isascii() and announced.isdigit() else 0


def open_form(headers: Headers, *, bytes_max: int) -> MultipartForm:
    """Begin to read an upload.

    Raises:
        RequestError: 415 no multipart/form-data, 400 no boundary, 413 too large as announced.
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


async def file_pieces(form: MultipartForm, receive: Receive, turn: Turn) -> AsyncIterator[bytes]:
    """Yield the file's bytes as they come; when it ends without an error, the form is whole.

    Who takes them has to stop at a size. All of the body counts for how fast it comes, its fields
    too: a body that announces much and sends nothing is not waited for any longer.

    Raises:
        RequestError: 400, 422; 408 it comes too slowly, or the client left.
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
        for piece in form.feed(body):
            yield piece
    form.finish()


def clean_filename(raw: bytes) -> str:
    """Return the last segment of what a client calls its file, without what moves a terminal."""
    name = raw.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    name = _UNSAFE.sub("", name).strip()[:FILENAME_CHARACTERS_MAX]
    return name if name.strip(".") else "file"


def malformed(why: str) -> RequestError:
    return request_error("invalid_multipart", f"the body is no multipart form: {why[:200]}")
