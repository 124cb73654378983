"""Turns errors of OpenAI-compatible servers into failures of an attempt. Pure.

An error stands in an error response, inside a stream, or in a body that should be a stream. This
module decides whether the same request can succeed later, and which errors a client is shown as the
server's own refusal of its request (`BackendError.upstream`):

    the error                               the failure                    `upstream`
    the prompt is too long                  upstream_refused               context_length_exceeded
    content policy, no money, no quota      upstream_refused               as sent
    400, 404, 413, 422 and other 4xx        upstream_refused               as sent
    401, 403, 405, 407, 3xx, other pages    upstream_refused: our set-up   none
    408, 429, 5xx, no status                upstream_error: tried again    none
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import NamedTuple

from shared.errors import BackendError, Refusal, for_clients
from workers.backends.contract import SetUpFault
from workers.backends.reading.error_body import ErrorBody, read_error
from workers.backends.reading.error_meaning import (
    Meaning,
    meaning_of,
    says_key,
    says_policy,
    says_too_long,
)

NAME_CHARACTERS_MAX = 100  # of a code, type or param after redaction
CONTEXT_TOO_LONG = (
    "context_length_exceeded"  # OpenAI's code: clients that see it shorten their history
)
NO_QUOTA = "insufficient_quota"  # OpenAI's code; for servers that give none
# The status of an error that comes without a status.
USUAL_STATUS: dict[Meaning, int] = {
    "too_long": 400, "policy": 400, "quota": 429, "missing": 404, "invalid": 400,
}  # fmt: skip
FINAL_DESPITE_STATUS: tuple[Meaning, ...] = ("too_long", "policy", "quota")
PLAIN_HTTP = (  # nginx; Go; Apache
    "plain http request was sent to https port",
    "client sent an http request to an https server",
    "speaking plain http to an ssl-enabled server port",
)


class Address(NamedTuple):
    """Texts for the error when `base_url` does not lead to the interface of the kind.

    Attributes:
        interface: the interface that the kind uses.
        rule: how the path of `base_url` has to be.
    """

    interface: str
    rule: str


CHAT = Address("chat completions", "most servers want it to end with /v1")


def failure_of(payload: bytes, address: Address = CHAT) -> BackendError:
    """Return the error in the data of an error event, or in a body that should be a stream."""
    error = read_error(payload)
    if error.form == "page":
        return page_failure(error, address)
    meaning = _meaning(error, error.status)
    if meaning is None and error.status is None:
        return BackendError("upstream_error", error.message)
    if (fault := _set_up_fault(error, error.status, meaning, address)) is not None:
        return fault
    if error.status is None or _is_final(error.status, meaning):
        return _refused(error, error.status, meaning, error.message)
    return BackendError("upstream_error", error.message)


def page_failure(error: ErrorBody, address: Address = CHAT) -> BackendError:
    """Return the failure for an HTML page in the place of an answer."""
    advice = f"base_url leads to {error.message}: check its host and its path; {address.rule}"
    message = f"the backend answered with {error.message}"
    return SetUpFault("upstream_error", message, advice, retryable=True)


def refusal(
    status: int,
    body: bytes,
    *,
    retry_after: str | None,
    now_s: float,
    address: Address = CHAT,
) -> BackendError:
    """Return the error for a response whose status is not 2xx.

    Args:
        retry_after: the header, in seconds or as an HTTP date (RFC 9110, 10.2.3).
        now_s: Unix time of the response; a date in `retry_after` is compared with it.
    """
    error = read_error(body)
    meaning = _meaning(error, status)
    message = f"the backend answered {status}: {error.message}"
    if (fault := _set_up_fault(error, status, meaning, address)) is not None:
        return fault
    if _is_final(status, meaning):
        return _refused(error, status, meaning, message)
    wait_s = parse_retry_after(retry_after, now_s)
    return BackendError("upstream_error", message, retry_after_s=wait_s)


def parse_retry_after(header: str | None, now_s: float) -> float | None:
    """Return the seconds to wait; None if the header is absent or unusable."""
    if not header:
        return None
    try:
        wait_s = float(header)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(header).timestamp() - now_s
        except ValueError:
            return None
    return max(wait_s, 0.0) if wait_s < 2**31 else None  # also refuses inf and nan


def answered_at(header: str | None, now_s: float) -> float:
    """Return the Unix time in a `Date` header; `now_s` if it is absent or invalid.

    The server's clock may differ from ours by an hour, and a date in `Retry-After` is of its clock.
    """
    try:
        return parsedate_to_datetime(header or "").timestamp()
    except ValueError:
        return now_s


def _meaning(error: ErrorBody, status: int | None) -> Meaning | None:
    meaning = meaning_of(error)
    if meaning in FINAL_DESPITE_STATUS:
        return meaning
    # Some servers send 500 for a prompt that is too long. 429 with such words is a rate limit.
    if status not in (401, 403, 404, 408, 429, 502, 503, 504) and says_too_long(error.message):
        return "too_long"
    if status == 402:
        return "quota"
    if status == 403 and says_policy(error.message):
        return "policy"
    if status in (None, 400) and says_key(error.message):
        return "key"
    return meaning


def _is_final(status: int, meaning: Meaning | None) -> bool:
    return meaning in FINAL_DESPITE_STATUS or (300 <= status < 500 and status not in (408, 429))


def _refused(
    error: ErrorBody, status: int | None, meaning: Meaning | None, message: str
) -> BackendError:
    """Return the failure with the server's own refusal."""
    code = error.code
    if meaning == "too_long":
        code = CONTEXT_TOO_LONG
    elif meaning == "quota":
        code = code or NO_QUOTA
    if status is None or not 400 <= status < 500:
        status = USUAL_STATUS.get(meaning or "invalid", 400)
    upstream = Refusal(
        for_clients(error.message),
        status,
        _bounded(code),
        _bounded(error.type),
        _bounded(error.param),
    )
    return BackendError("upstream_refused", message, retryable=False, upstream=upstream)


def _bounded(name: str | None) -> str | None:
    if name is None:
        return None
    printable = "".join(character for character in for_clients(name) if character.isprintable())
    return printable[:NAME_CHARACTERS_MAX] or None


def _set_up_fault(
    error: ErrorBody, status: int | None, meaning: Meaning | None, address: Address
) -> SetUpFault | None:
    """Return the failure if the operator has to mend something; None: the error is another one."""
    if meaning in FINAL_DESPITE_STATUS:
        return None
    answered = f"the backend answered {status}" if status else "the backend sent an error"
    if 300 <= (status or 0) < 400:
        what, advice = "it redirects", "set base_url to the address behind the redirect"
    elif status == 400 and any(words in error.message.lower() for words in PLAIN_HTTP):
        what, advice = "it needs https", "base_url says http:// and the server https://: correct it"
    elif status == 407:
        what, advice = "the proxy wants credentials", "put user and password into the proxy's URL"
    elif status in (401, 403) or (meaning == "key" and (status or 400) == 400):
        what = "it does not accept the credentials of this system"
        advice = "check api_key_env and headers of the model"
    elif status == 405 or (status == 404 and _is_of_no_model(error)):
        what = f"it has no {address.interface} at this address"
        advice = f"check the path of base_url; {address.rule}"
    else:
        return None
    quoted = f"{advice}. The server's answer: {error.message}"
    return SetUpFault("upstream_refused", f"{answered}: {what}", quoted, retryable=False)


def _is_of_no_model(error: ErrorBody) -> bool:
    """Whether a 404 is a web server's answer for an unknown path, and not about a model."""
    return error.form != "error" or error.message == "Not Found"  # the latter is FastAPI's
