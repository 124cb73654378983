"""Parses what a reader received: is the text exact, and when did each token arrive?

Pure: bytes and arrival times in, a `ReaderResult` out. Pieces may have been joined on the way, so
tokens are counted by text and not by events. A token has arrived when the last byte of its text was
read from the socket.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import msgspec

Arrivals = Sequence[tuple[float, bytes]]  # time of a read, and its bytes

SSE_DATA = re.compile(rb"^data: (.*)\r?$", re.M)
RETRY = re.compile(rb"retry: \d+\n")
CHUNKED = b"transfer-encoding: chunked"
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.I)


class Piece(msgspec.Struct):
    """The parts of an event that matter: its text, or that the text so far is void."""

    text: str = ""
    type: str = ""
    reason: str = ""


class Poll(msgspec.Struct):
    """The reply to a long poll."""

    events: list[Piece]


_piece = msgspec.json.Decoder(Piece)
_poll = msgspec.json.Decoder(Poll)
VOID = "\N{REPLACEMENT CHARACTER}"  # replaces a reset: a text that contains it is never exact


@dataclass(frozen=True, slots=True)
class ReaderResult:
    """The bytes that one reader got.

    Attributes:
        times: when each token had arrived, in order; shorter than the answer if tokens are missing.
        reads: number of socket reads that brought tokens.
        sent_bytes: bytes that the reader sent.
    """

    is_exact: bool
    times: array[float]
    reads: int
    wire_bytes: int
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Parsed:
    """One body: its text, and how much of it was complete after how many raw bytes."""

    text: str
    chars: list[int]
    raw_ends: list[int]


class TextCheck:
    """Compares what readers got with the tokens of their answers.

    Args:
        answers: the tokens of each answer, in order.
    """

    def __init__(self, kind: str, answers: Sequence[Sequence[str]]) -> None:
        self._kind = kind
        self._answers = ["".join(tokens) for tokens in answers]
        self._token_ends = [list(accumulate(map(len, tokens))) for tokens in answers]
        self._known: dict[bytes, Parsed] = {}  # most readers of a stream get the same bytes

    def read(self, arrivals: Arrivals, answer: int, sent_bytes: int = 0) -> ReaderResult:
        """Return the result of one reader.

        Args:
            answer: the index of its answer.
        """
        raw = b"".join(data for _, data in arrivals)
        parsed = self._parse(raw)
        ends = self._raw_ends(parsed, answer)
        times: array[float] = array("d")
        seen = reads = 0
        for at, data in arrivals:
            seen += len(data)
            new = bisect_right(ends, seen) - len(times)
            times.extend([at] * new)
            reads += new > 0
        is_exact = parsed.text == self._answers[answer]
        return ReaderResult(is_exact, times, reads, len(raw), sent_bytes)

    def _parse(self, raw: bytes) -> Parsed:
        # `retry:` is random for each reader; everything else is equal for equal slices.
        # Heads differ in their date but not in their length, so only bodies are compared.
        head, body = _split_head(raw)
        key = b"%d %b" % (len(head), RETRY.sub(b"retry\n", body[:400], count=1) + body[400:])
        parsed = self._known.get(key)
        if parsed is None:
            parsed = self._known[key] = parse(self._kind, raw)
        return parsed

    def _raw_ends(self, parsed: Parsed, answer: int) -> list[int]:
        """Return after how many raw bytes each token was complete."""
        ends = []
        at = 0
        for token_end in self._token_ends[answer]:
            while at < len(parsed.chars) and parsed.chars[at] < token_end:
                at += 1
            if at == len(parsed.chars):
                break
            ends.append(parsed.raw_ends[at])
        return ends


def parse(kind: str, raw: bytes) -> Parsed:
    """Parse a body.

    Args:
        kind: `sse`, `ndjson`, `ws` or `poll`.
    """
    match kind:
        case "sse":
            pieces = _by_line(_chunks(raw), SSE_DATA)
        case "ndjson":
            pieces = _by_line(_chunks(raw), re.compile(rb"^(\{.*)$", re.M))
        case "ws":
            pieces = ((_piece.decode(frame), end) for frame, end in _frames(raw))
        case _:
            pieces = ((p, end) for body, end in _replies(raw) for p in _poll.decode(body).events)
    texts, chars, raw_ends = [], [], []
    size = 0
    for piece, raw_end in pieces:
        text = VOID if piece.reason else piece.text
        if text:
            size += len(text)
            texts.append(text)
            chars.append(size)
            raw_ends.append(raw_end)
    return Parsed("".join(texts), chars, raw_ends)


def _by_line(
    chunks: Iterator[tuple[bytes, int]], line: re.Pattern[bytes]
) -> Iterator[tuple[Piece, int]]:
    """Yield the events in a body. An event is complete with the chunk that has its last byte."""
    datas, body_ends, raw_ends = [], [], []
    size = 0
    for data, raw_end in chunks:
        size += len(data)
        datas.append(data)
        body_ends.append(size)
        raw_ends.append(raw_end)
    body = b"".join(datas)
    for found in line.finditer(body):
        if found.end() == len(body):
            break  # the line end has not arrived
        yield _piece.decode(found[1]), raw_ends[bisect_right(body_ends, found.end())]


def _split_head(raw: bytes) -> tuple[bytes, bytes]:
    at = raw.find(b"\r\n\r\n") + 4
    return raw[:at], raw[at:]


def _chunks(raw: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the chunks of a body, each with its end in `raw`; an incomplete last one is omitted.

    A body without chunks (that of nginx) is yielded line by line.
    """
    at = raw.find(b"\r\n\r\n") + 4
    if CHUNKED not in raw[:at].lower():
        while line_end := raw.find(b"\n", at) + 1:
            yield raw[at:line_end], line_end
            at = line_end
        return
    while (line_end := raw.find(b"\r\n", at)) > 0:
        size = int(raw[at:line_end], 16)
        at = line_end + 2 + size + 2
        if not size or at > len(raw):
            return
        yield raw[line_end + 2 : at - 2], at


def _frames(raw: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the text frames of a WebSocket, unmasked as servers send them; none is fragmented."""
    at = raw.find(b"\r\n\r\n") + 4
    while at + 2 <= len(raw):
        is_text, size, start = raw[at] == 0x81, raw[at + 1], at + 2
        if size == 126:
            size, start = int.from_bytes(raw[at + 2 : at + 4]), at + 4
        elif size == 127:
            size, start = int.from_bytes(raw[at + 2 : at + 10]), at + 10
        at = start + size
        if at > len(raw):
            return
        if is_text:
            yield raw[start:at], at


def _replies(raw: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the bodies of successive HTTP replies."""
    at = 0
    while (start := raw.find(b"\r\n\r\n", at) + 4) > 3:
        length = LENGTH.search(raw, at, start)
        at = start + (int(length[1]) if length else 0)
        if at > len(raw):
            return
        yield raw[start:at], at
