"""The first look at a batch's input: whether each line is one that can be asked at all. Pure.

One wrong line, and nothing runs. What a line asks for is not looked at here: what the API would
refuse is refused in its turn, and goes to the error file.
Source: docs/batches.md, "The input".
"""

from __future__ import annotations

import hashlib

import msgspec

from api.intake.strict_json import mend_surrogates
from jobs.batch.splitter import InputLine
from shared.batches.record import LINES_MAX

COMPLAINTS_MAX = 100  # then it is not read any further
CUSTOM_ID_CHARACTERS_MAX = 512
LINE_FRAME_BYTES = 8_192  # what a line has around its body, at most
LINE_BYTES_MAX = 16_777_216  # a body that is too long is refused as a body, up to here


class Line(msgspec.Struct, frozen=True):
    """A line as it should be; further members are ignored."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class Complaint(msgspec.Struct, frozen=True):
    """Why a batch fails: one of `errors.data`."""

    code: str
    line: int | None
    message: str
    param: str | None = None


class _Names(msgspec.Struct):
    """The members of a line that is none, as they stand there. What is large is never decoded."""

    custom_id: msgspec.Raw = msgspec.Raw()
    method: msgspec.Raw = msgspec.Raw()
    url: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(Line).decode
_decode_names = msgspec.json.Decoder(_Names).decode
_scan = msgspec.json.Decoder(msgspec.Raw).decode


def decode_line(raw: bytes) -> Line:
    """Decode a line.

    Half a surrogate pair is JSON and yet no text (RFC 8259, 8.2). A line with one beside its id is
    a line; its body is then all of it, for the API to refuse in its turn, for that same reason.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: it is none.
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
    """Takes line after line; afterwards `complaints` and `total` say what came of it."""

    def __init__(self, endpoint: str, *, bytes_max: int) -> None:
        self.total = 0
        self.complaints: list[Complaint] = []
        self._endpoint = endpoint
        self._bytes_max = bytes_max
        self._seen: set[bytes] = set()  # digests: ids may be long, and there are many

    @property
    def is_over(self) -> bool:
        """Whether reading on would say nothing more."""
        return len(self.complaints) >= COMPLAINTS_MAX or self.total > LINES_MAX

    def add(self, line: InputLine) -> None:
        self.total += 1
        if self.total > LINES_MAX:
            message = f"a batch has at most {LINES_MAX} lines: make several of it"
            self.complaints.append(Complaint("too_many_lines", line.number, message))
        elif (complaint := self._look(line)) is not None:
            self.complaints.append(complaint)

    def close(self) -> None:
        """Take the end of the input."""
        if not self.total:
            self.complaints.append(Complaint("empty_file", None, "the input file has no lines"))

    def _look(self, line: InputLine) -> Complaint | None:
        if line.raw is None:
            message = f"the line is longer than {self._bytes_max} bytes"
            return Complaint("line_too_large", line.number, message)
        try:
            asked = decode_line(line.raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            return _why(line, exc)
        return self._compare(line.number, asked)

    def _compare(self, number: int, asked: Line) -> Complaint | None:
        if asked.method != "POST":
            return Complaint("invalid_method", number, "method must be POST", "method")
        if asked.url != self._endpoint:
            message = f"url must be the batch's endpoint, {self._endpoint}"
            return Complaint("invalid_url", number, message, "url")
        if not 0 < len(asked.custom_id) <= CUSTOM_ID_CHARACTERS_MAX:
            message = f"custom_id must have 1 to {CUSTOM_ID_CHARACTERS_MAX} characters"
            return Complaint("invalid_custom_id", number, message, "custom_id")
        digest = hashlib.blake2b(asked.custom_id.encode(), digest_size=16).digest()
        if digest in self._seen:
            message = f"custom_id {asked.custom_id[:64]!r} is used before"
            return Complaint("duplicate_custom_id", number, message, "custom_id")
        self._seen.add(digest)
        return None


def _why(line: InputLine, exc: Exception) -> Complaint:
    """Say what is wrong with a line that is none."""
    assert line.raw is not None
    try:
        line.raw.decode()  # a scan does not look into strings
        _scan(line.raw)  # all of it: what follows looks at members only
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Complaint("invalid_json_line", line.number, f"the line is not JSON: {exc}")
    if not line.raw.lstrip().startswith(b"{"):
        return Complaint("invalid_line", line.number, "the line must be an object")
    found = _decode_names(line.raw)
    for name in ("custom_id", "method", "url"):
        value = bytes(getattr(found, name))
        if not value.startswith(b'"'):
            said = "must be a string" if value else "is missing"
            code = "missing_custom_id" if name == "custom_id" else "invalid_line"
            return Complaint(code, line.number, f"{name} {said}", name)
    return Complaint("invalid_line", line.number, "body is missing", "body")
