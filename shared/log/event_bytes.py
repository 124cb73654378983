"""The bytes of events as the log holds them: what code may compare without decoding JSON."""

from __future__ import annotations

TOKEN_PREFIX = b'{"type":"token","text":"'
TOKEN_SUFFIX = b'"}'
RESET = b'{"type":"reset","reason":"log_rewritten"}'
LOST = (
    b'{"type":"end","status":"failed","finish_reason":"error","error":{"code":"lost",'
    b'"message":"the log of this generation was lost: start a new one","retryable":true}}'
)
