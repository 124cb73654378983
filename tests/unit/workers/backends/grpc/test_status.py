"""Each status of gRPC as a failure, and the causes of connections that were not made."""

from __future__ import annotations

import pytest

from workers.backends.contract import SetUpFault
from workers.backends.grpc.status import cause_of, failure_of_status
from workers.backends.http.cause import explain
from workers.backends.http.upstream_http import Origin


@pytest.mark.parametrize(
    ("code", "failure", "is_retryable", "is_outage"),
    [
        ("INVALID_ARGUMENT", "upstream_refused", False, False),
        ("OUT_OF_RANGE", "upstream_refused", False, False),
        ("NOT_FOUND", "upstream_refused", False, False),
        ("UNAUTHENTICATED", "upstream_refused", False, False),
        ("PERMISSION_DENIED", "upstream_refused", False, False),
        ("UNIMPLEMENTED", "upstream_refused", False, False),
        ("RESOURCE_EXHAUSTED", "upstream_error", True, False),
        ("UNAVAILABLE", "upstream_error", True, True),
        ("INTERNAL", "upstream_error", True, False),
        ("UNKNOWN", "upstream_error", True, False),
        ("ABORTED", "upstream_error", True, False),
        ("CANCELLED", "upstream_error", True, False),
        ("DATA_LOSS", "upstream_error", True, False),
    ],
)
def test_a_status_is_a_failure(
    code: str, failure: str, is_retryable: bool, is_outage: bool
) -> None:
    error = failure_of_status(code, "no such thing", retry_after=None)

    assert (error.code, error.retryable, error.is_outage) == (failure, is_retryable, is_outage)
    assert code in error.message


def test_the_server_may_ask_for_a_pause() -> None:
    assert failure_of_status("RESOURCE_EXHAUSTED", "", retry_after="7").retry_after_s == 7


def test_a_prompt_that_is_too_long_is_known_by_the_words() -> None:
    details = "This model's maximum context length is 512 tokens, you asked for 600"
    error = failure_of_status("INVALID_ARGUMENT", details, retry_after=None)

    assert error.upstream is not None and error.upstream.code == "context_length_exceeded"


def test_a_server_with_another_protocol_is_a_fault_of_the_set_up() -> None:
    error = failure_of_status("UNIMPLEMENTED", "unknown service", retry_after=None)

    assert isinstance(error, SetUpFault) and "`protocol`" in error.advice


# The details are those of grpcio 1.85.
@pytest.mark.parametrize(
    ("details", "said"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to "
            "connect to remote host: connect: Connection refused (111)",
            "it refuses the connection",
        ),
        ("DNS resolution failed for nowhere.invalid:1: unknown", "its host name is unknown"),
        ("DNS resolution failed for x:1: timeout", "DNS gives no answer"),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to "
            "connect to remote host: connect: No route to host (113)",
            "no route leads to it",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Ssl "
            "handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:"
            "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self-signed certificate",
            "its certificate is self-signed",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Ssl "
            "handshake failed: SSL_ERROR_SSL: WRONG_VERSION_NUMBER: Invalid certificate "
            "verification context",
            "it does not speak TLS",
        ),
    ],
    ids=["refused", "name", "dns", "route", "self-signed", "no tls"],
)
def test_a_connection_that_was_not_made_has_a_cause(details: str, said: str) -> None:
    cause = cause_of("UNAVAILABLE", details)

    assert cause is not None
    assert explain(cause, Origin("127.0.0.1", 1, True)).for_client == said


def test_a_server_that_says_unavailable_was_reached() -> None:
    assert cause_of("UNAVAILABLE", "loading the model") is None
