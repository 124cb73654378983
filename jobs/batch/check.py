"""Checks the form of every line of a batch's input, before the batch runs. Pure.

One malformed line fails the whole batch. The bodies are not checked here: a body that the API would
refuse is refused when its line runs, and goes to the error file.
Source: docs/batches.md, "The input".
"""

from __future__ import annotations

import hashlib
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE

import msgspec

from api.intake.strict_json import mend_surrogates
from jobs.batch.splitter import InputLine
from shared.batches.record import LINES_MAX

COMPLAINTS_MAX = 100  # then the rest of the input is not read
CUSTOM_ID_CHARACTERS_MAX = 512
LINE_FRAME_BYTES = 8_192  # of a line, without its body, at most
LINE_BYTES_MAX = 16_777_216  # up to here only the body is refused, not the whole input


class Line(msgspec.Struct, frozen=True):
    """A well-formed line; further members are ignored."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class Complaint(msgspec.Struct, frozen=True):
    """A reason why a batch fails: one entry of `errors.data`."""

    code: str
    line: int | None
    message: str
    param: str | None = None


class _Names(msgspec.Struct):
    """The undecoded members of a malformed line; large values are never decoded."""

    custom_id: msgspec.Raw = msgspec.Raw()
    method: msgspec.Raw = msgspec.Raw()
    url: msgspec.Raw = msgspec.Raw()


# The end of an object, then CR as the only line break, then the next object.
_NEXT_AFTER_CR = re.compile(rb"}[ \t]*\r\s*{")

_decode = msgspec.json.Decoder(Line).decode
_decode_names = msgspec.json.Decoder(_Names).decode
_scan = msgspec.json.Decoder(msgspec.Raw).decode


def decode_line(raw: bytes) -> Line:
    """Decode a line.

    Half of a surrogate pair is valid JSON but no text (RFC 8259, 8.2). A line with one outside its
    id is accepted, and its body becomes the whole line: the API refuses it later for this reason.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: the line is malformed.
    """
    try:
        return _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        mended = mend_surrogates(raw)
        if mended is None:
            raise
        line = _decode(mended)
        if "\ufffd" in line.custom_id:
            raise
        return msgspec.structs.replace(line, body=msgspec.Raw(raw))


class InputCheck:
    """Checks line after line, and collects `complaints` and the `total` of lines."""

    def __init__(self, endpoint: str, *, bytes_max: int) -> None:
        self.total = 0
        self.complaints: list[Complaint] = []
        self._endpoint = endpoint
        self._bytes_max = bytes_max
        self._seen: set[bytes] = set()  # digests: ids may be long, and there are many

    @property
    def is_over(self) -> bool:
        """Whether the rest of the input need not be read."""
        is_other_text = any(found.code == "invalid_encoding" for found in self.complaints[:1])
        return is_other_text or len(self.complaints) >= COMPLAINTS_MAX or self.total > LINES_MAX

    def add(self, line: InputLine) -> None:
        """Check the next line."""
        self.total += 1
        if self.total > LINES_MAX:
            message = f"a batch has at most {LINES_MAX} lines: split it into several batches"
            self.complaints.append(Complaint("too_many_lines", line.number, message))
        elif (complaint := self._check(line)) is not None:
            self.complaints.append(complaint)

    def close(self) -> None:
        """Check the input as a whole, after its last line."""
        if not self.total:
            self.complaints.append(Complaint("empty_file", None, "the input file has no lines"))

    def _check(self, line: InputLine) -> Complaint | None:
        if line.raw is None:
            message = f"the line is longer than {self._bytes_max} bytes; lines end with LF or CRLF"
            return Complaint("line_too_large", line.number, message)
        try:
            query = decode_line(line.raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            return _why(line, exc, is_first=self.total == 1)
        return self._compare(line.number, query)

    def _compare(self, number: int, query: Line) -> Complaint | None:
        if query.method != "POST":
            return Complaint("invalid_method", number, "method must be POST", "method")
        if query.url != self._endpoint:
            message = f"url must be the batch's endpoint, {self._endpoint}"
            return Complaint("invalid_url", number, message, "url")
        if not 0 < len(query.custom_id) <= CUSTOM_ID_CHARACTERS_MAX:
            message = f"custom_id must have 1 to {CUSTOM_ID_CHARACTERS_MAX} characters"
            return Complaint("invalid_custom_id", number, message, "custom_id")
        digest = hashlib.blake2b(query.custom_id.encode(), digest_size=16).digest()
        if digest in self._seen:
            message = f"custom_id {query.custom_id[:64]!r} is used by an earlier line"
            return Complaint("duplicate_custom_id", number, message, "custom_id")
        self._seen.add(digest)
        return None


def _other_text(first: bytes) -> str:
    """Return what is wrong with a file as a whole whose first line is malformed; "": nothing."""
    if first.startswith((BOM_UTF16_LE, BOM_UTF16_BE, b"{\0", b"\0")):
        return "the file is UTF-16 or UTF-32: save it as UTF-8"
    if _NEXT_AFTER_CR.search(first):
        return "the lines of the file end with CR alone: end them with LF or CRLF"
    return ""


def _why(line: InputLine, exc: Exception, *, is_first: bool) -> Complaint:
    """Return the complaint about a malformed line."""
    assert line.raw is not None
    if is_first and (message := _other_text(line.raw)):
        return Complaint("invalid_encoding", None, message)
    try:
        line.raw.decode()  # the scan does not check UTF-8 inside strings
        _scan(line.raw)  # all of it: the code below decodes single members only
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Complaint("invalid_json_line", line.number, f"the line is not JSON: {exc}")
    if not line.raw.lstrip().startswith(b"{"):
        return Complaint("invalid_line", line.number, "the line must be an object")
    found = _decode_names(line.raw)
    for name in ("custom_id", "method", "url"):
        value = bytes(getattr(found, name))
        if not value.startswith(b'"'):
            problem = "must be a string" if value else "is missing"
            code = "missing_custom_id" if name == "custom_id" else "invalid_line"
            return Complaint(code, line.number, f"{name} {problem}", name)
    return Complaint("invalid_line", line.number, "body is missing", "body")
