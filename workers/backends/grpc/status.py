"""Turns the status of a gRPC call into the failure of an attempt. Pure.

    status                                             as the HTTP status
    INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE   400: refused
    UNAUTHENTICATED, PERMISSION_DENIED                    401, 403: our set-up
    NOT_FOUND                                             404: refused
    UNIMPLEMENTED                                         the server has no such call: our set-up
    RESOURCE_EXHAUSTED                                    429: tried again
    UNAVAILABLE                                           503: an outage
    all others                                            500: tried again

Source: gRPC's documentation, "Status codes and their use in gRPC".
"""

from __future__ import annotations

import errno
import re
import socket
import ssl

import msgspec

from shared.errors import BackendError
from workers.backends.contract import SetUpFault
from workers.backends.reading.failure import Address, refusal

ADDRESS = Address("call Generate", "it is grpc://host:port, and `protocol` has to fit the server")
STATUSES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
}
# The words of grpcio's core for a connection that cannot be opened.
_UNREACHABLE = ("failed to connect", "dns resolution failed", "connections to all backends failing")
# Its words for a connection that breaks in the middle of a call.
_BROKEN = (
    *("socket closed", "connection reset", "connection aborted", "broken pipe", "goaway"),
    *("rst_stream", "recvmsg", "end of tcp stream", "transport closed"),
)
# The words of grpcio's core for a message that is longer than our limit.
MESSAGE_TOO_LARGE = re.compile(r"received message larger than max", re.I)


def failure_of_status(code: str, details: str, *, retry_after: str | None) -> BackendError:
    """Return the failure for a status that is not OK.

    Args:
        code: its name.
        details: its message.
        retry_after: of the trailing metadata, s.
    """
    if code == "UNAVAILABLE" and any(words in details.lower() for words in _BROKEN):
        message = "the connection to the backend broke in mid-answer"
        return BackendError("upstream_error", message, is_outage=True)
    if code == "UNIMPLEMENTED":
        message = f"the backend answered {code}: it has no call for answers"
        advice = f"{ADDRESS.rule}. The server's answer: {details}"
        return SetUpFault("upstream_refused", message, advice, retryable=False)
    status = STATUSES.get(code, 500)
    body = msgspec.json.encode({"error": {"message": details or code}})
    error = refusal(status, body, retry_after=retry_after, now_s=0.0, address=ADDRESS)
    # The operator looks for the server's own word in its log.
    error.message = error.message.replace(f"answered {status}", f"answered {code}", 1)
    error.is_outage = error.retryable and status == 503
    return error


def cause_of(code: str, details: str) -> OSError | None:
    """Return why no connection was made, as the exception that sockets raise for it.

    None: there was a connection, and the server has sent this status.
    """
    said = details.lower()
    if code != "UNAVAILABLE" or not any(words in said for words in _UNREACHABLE):
        return None
    if "dns resolution failed" in said:
        again = "timeout" in said or "try again" in said
        return socket.gaierror(socket.EAI_AGAIN if again else socket.EAI_NONAME, details)
    for words, number in (
        ("connection refused", errno.ECONNREFUSED),
        ("no route to host", errno.EHOSTUNREACH),
        ("network is unreachable", errno.ENETUNREACH),
        ("connection reset", errno.ECONNRESET),
        ("timed out", errno.ETIMEDOUT),
        ("timeout", errno.ETIMEDOUT),
    ):
        if words in said:
            return OSError(number, details)
    if "certificate" in said or "ssl" in said or "handshake" in said or "tls" in said:
        return _tls_cause(said, details)
    return OSError(details)


def _tls_cause(said: str, details: str) -> OSError:
    """Return the exception of the ssl module for a failed handshake."""
    found = ssl.SSLCertVerificationError(1, details)
    for words, number in (
        ("self-signed", 18),
        ("self signed", 18),
        ("unable to get local issuer", 20),
        ("certificate has expired", 10),
        ("not yet valid", 9),
        ("hostname", 62),
        ("peer name", 62),
    ):
        if words in said:
            found.verify_code, found.verify_message = number, words
            return found
    wrong = ssl.SSLError(1, details)
    wrong.reason = "WRONG_VERSION_NUMBER" if "wrong_version" in said else "handshake failed"
    return wrong
