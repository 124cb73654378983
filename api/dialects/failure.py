"""The failures that several dialects report in the same words. Pure.

A model server that refuses a request says why, in members that clients act on: LobeChat and
LangChain know `context_length_exceeded` and `insufficient_quota` by their codes. So each dialect
shows the server's refusal instead of our own code, wherever the refusal is about the client's
request.
Source: docs/protocol.md, "How dialects show a refusal".
"""

from __future__ import annotations

from http import HTTPStatus

from msgspec.structs import replace

from shared.errors import Refusal
from shared.log.events import Failure

# For a generation that ended as failed, with no reason in its log.
GENERATION_FAILED = Failure("upstream_error", "the generation failed", True)
# For a dialect that cannot take back what it has sent, after a `reset` in the log.
STREAM_RESET = Failure(
    "stream_reset", "the answer was begun anew and what was sent is void: ask again", True
)
INSUFFICIENT_QUOTA = "insufficient_quota"  # OpenAI's code, for which clients do not repeat a 429
# The model server refused the operator's key or proxy. A client that got this status would ask its
# user for another key of ours.
_ABOUT_THE_OPERATOR = (HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)


def client_refusal(failure: Failure) -> Refusal | None:
    """Return the model server's refusal, with the status that a client gets.

    Returns:
        None: the server did not refuse, or for a reason that is not in the client's request.
    """
    refusal = failure.upstream
    if refusal is None:
        return None
    if INSUFFICIENT_QUOTA in (refusal.code, refusal.type):
        return replace(refusal, status=HTTPStatus.TOO_MANY_REQUESTS, code=INSUFFICIENT_QUOTA)
    if refusal.status is None:
        return replace(refusal, status=HTTPStatus.BAD_REQUEST)
    if refusal.status in _ABOUT_THE_OPERATOR or not 400 <= refusal.status < 500:
        return None
    return refusal


def shown(failure: Failure) -> Failure:
    """Return the failure with the code, message and retryability that a client is shown."""
    refusal = client_refusal(failure)
    if refusal is None:
        return failure
    code = refusal.code or failure.code
    is_retryable = failure.retryable and code != INSUFFICIENT_QUOTA
    return Failure(code, refusal.message, is_retryable, refusal)
