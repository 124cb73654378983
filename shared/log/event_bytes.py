"""The bytes of events as the log holds them: what code may compare without decoding JSON."""

from __future__ import annotations

TOKEN_PREFIX = b'{"type":"token","text":"'
TOKEN_SUFFIX = b'"}'
RESET = b'{"type":"reset","reason":"log_rewritten"}'
LOST = (
    b'{"type":"end","status":"failed","finish_reason":"error","error":{"code":"lost",'
    b'"message":"the log of this generation was lost: start a new one","retryable":true}}'
)


def plain_text(raw: bytes) -> bytes | None:
    """Return the text of a `token` entry that says nothing else, as a JSON string holds it.

    A JSON string goes from one JSON document to another as it is, without being decoded, which is
    most of the cost of a token. None: the entry is another event, or its text holds an escape that
    ends in a quote, or a line break of a foreign writer: decode the entry instead.
    """
    if not (raw.startswith(TOKEN_PREFIX) and raw.endswith(TOKEN_SUFFIX)):
        return None
    text = raw[len(TOKEN_PREFIX) : -len(TOKEN_SUFFIX)]
    return None if b'"' in text or b"\n" in text else text
