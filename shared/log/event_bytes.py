"""The encoded form of some events, which code compares without decoding JSON."""

from __future__ import annotations

TOKEN_PREFIX = b'{"type":"token","text":"'
TOKEN_SUFFIX = b'"}'
END_PREFIX = b'{"type":"end"'
RESET = b'{"type":"reset","reason":"log_rewritten"}'
LOST = (
    b'{"type":"end","status":"failed","finish_reason":"error","error":{"code":"lost",'
    b'"message":"the log of this generation was lost: start a new one","retryable":true}}'
)
# The end of a generation that was deleted while it ran, and for readers that were still reading.
DELETED = (
    b'{"type":"end","status":"cancelled","finish_reason":"cancelled","error":{"code":"deleted",'
    b'"message":"this generation was deleted","retryable":false}}'
)

# U+2028, U+2029 and U+0085. JSON leaves them as they are, but line readers that split at every line
# end of Unicode (Python's `splitlines`, httpx's `iter_lines`) split at them.
LINE_SEPARATOR, PARAGRAPH_SEPARATOR, NEXT_LINE = b"\xe2\x80\xa8", b"\xe2\x80\xa9", b"\xc2\x85"


def escape_line_ends(framed: bytes) -> bytes:
    """Escape the line ends of Unicode in lines of JSON, where they stand in strings only."""
    if framed.isascii():  # most events: much cheaper than three searches
        return framed
    framed = framed.replace(LINE_SEPARATOR, rb"\u2028")
    framed = framed.replace(PARAGRAPH_SEPARATOR, rb"\u2029")
    return framed.replace(NEXT_LINE, rb"\u0085")


def plain_text(raw: bytes) -> bytes | None:
    """Return the still escaped JSON text of a `token` entry that has no other member.

    An escaped string can be copied from one JSON document into another. This avoids decoding, which
    is most of the cost of a token. None: decode the entry instead. It is another event, or its text
    holds an escaped quote, or a line break that a foreign writer left unescaped.
    """
    if not (raw.startswith(TOKEN_PREFIX) and raw.endswith(TOKEN_SUFFIX)):
        return None
    text = raw[len(TOKEN_PREFIX) : -len(TOKEN_SUFFIX)]
    return None if b'"' in text or b"\n" in text else text
