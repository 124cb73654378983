"""Our errors as statuses with details, read back with protobuf's own messages."""

from __future__ import annotations

import base64

import msgspec
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from api.dialects.grpc.status import (
    code_of,
    connect_end,
    connect_error,
    member_of,
    status_bytes,
    trailer_frame,
    trailers,
)
from api.errors import CODES, request_error
from shared.errors import CursorInvalid, NotFound


def rpc_messages() -> dict[str, type[Message]]:
    """Build google.rpc's messages, which are in no package of ours."""
    pool = descriptor_pool.DescriptorPool()
    text, embedded, integer = 9, 11, 5
    rows: dict[str, list[tuple[str, int, int, str, bool]]] = {
        "Any": [("type_url", 1, text, "", False), ("value", 2, 12, "", False)],
        "Status": [("code", 1, integer, "", False), ("message", 2, text, "", False),
                   ("details", 3, embedded, ".g.Any", True)],
        "Entry": [("key", 1, text, "", False), ("value", 2, text, "", False)],
        "ErrorInfo": [("reason", 1, text, "", False), ("domain", 2, text, "", False),
                      ("metadata", 3, embedded, ".g.Entry", True)],
        "Duration": [("seconds", 1, 3, "", False)],
        "RetryInfo": [("retry_delay", 1, embedded, ".g.Duration", False)],
        "Violation": [("field", 1, text, "", False), ("description", 2, text, "", False)],
        "BadRequest": [("field_violations", 1, embedded, ".g.Violation", True)],
    }  # fmt: skip
    file = descriptor_pb2.FileDescriptorProto(name="g.proto", package="g", syntax="proto3")
    for name, fields in rows.items():
        message = file.message_type.add(name=name)
        for field, number, kind, of, is_list in fields:
            added = message.field.add(
                name=field, number=number, type=kind, label=3 if is_list else 1
            )
            if of:
                added.type_name = of
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"g.{name}"))
        for name in rows
    }


RPC = rpc_messages()
STATUSES = {
    "invalid_request": (3, "invalid_argument", 400),
    "not_found": (5, "not_found", 404),
    "forbidden": (7, "permission_denied", 403),
    "unauthorized": (16, "unauthenticated", 401),
    "quota_exhausted": (8, "resource_exhausted", 429),
    "body_too_large": (8, "resource_exhausted", 429),
    "generation_ended": (9, "failed_precondition", 400),
    "expired": (5, "not_found", 404),
    "not_installed": (12, "unimplemented", 501),
    "internal": (13, "internal", 500),
    "draining": (14, "unavailable", 503),
    "too_slow": (14, "unavailable", 503),
}


@pytest.mark.parametrize("code", STATUSES)
def test_each_kind_of_error_has_its_status(code: str) -> None:
    assert code_of(request_error(code, "why")) == STATUSES[code]


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_status_that_is_an_error(code: str) -> None:
    assert 1 <= code_of(request_error(code, "why")).number <= 16


def test_a_status_says_code_retryability_time_and_member() -> None:
    error = request_error("rate_limited", "params.n: wait", retry_after_s=7)
    status = RPC["Status"].FromString(status_bytes(error))

    assert (status.code, status.message) == (8, "params.n: wait")  # type: ignore[attr-defined]
    kinds = {each.type_url.rpartition(".")[2]: each.value for each in status.details}  # type: ignore[attr-defined]
    assert list(kinds) == ["ErrorInfo", "RetryInfo"]
    info = RPC["ErrorInfo"].FromString(kinds["ErrorInfo"])
    assert (info.reason, info.domain) == ("RATE_LIMITED", "tailrace")  # type: ignore[attr-defined]
    facts = {entry.key: entry.value for entry in info.metadata}  # type: ignore[attr-defined]
    assert facts == {"code": "rate_limited", "retryable": "true"}
    assert RPC["RetryInfo"].FromString(kinds["RetryInfo"]).retry_delay.seconds == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("message", "member"),
    [
        ("messages[3].role must be one of user", "messages[3].role"),
        ("params.n: one generation is one answer", "params.n"),
        ("give either prompt or messages", "prompt"),
        ("metadata must be an object", "metadata"),
        ("the body must be an object", ""),
    ],
)
def test_a_bad_member_is_named(message: str, member: str) -> None:
    error = request_error("invalid_request", message)

    assert member_of(error) == member
    details = connect_error(error)["details"]
    assert [each["type"] for each in details[1:]] == ["google.rpc.BadRequest"] * bool(member)


def test_the_member_of_a_bad_cursor_is_the_cursor_and_of_others_nothing() -> None:
    assert member_of(CursorInvalid("zz")) == "cursor"
    assert member_of(NotFound()) == ""


def test_trailers_are_ascii_on_one_line_whatever_the_message_says() -> None:
    error = request_error("invalid_request", "100 % “wrong”\r\ngrpc-status: 0\0")
    lines = trailer_frame(error)[5:].split(b"\r\n")

    assert [line.partition(b":")[0] for line in lines] == [
        b"grpc-status", b"grpc-message", b"grpc-status-details-bin", b"",
    ]  # fmt: skip
    assert lines[1] == (b"grpc-message: 100 %25 %E2%80%9Cwrong%E2%80%9D%0D%0Agrpc-status: 0%00")
    details = dict(trailers(error))["grpc-status-details-bin"]
    padded = base64.b64decode(details + "=" * (-len(details) % 4))
    assert padded == status_bytes(error)


def test_a_long_message_is_cut_because_it_travels_in_a_header() -> None:
    assert len(trailer_frame(request_error("invalid_request", "é" * 100_000))) < 40_000


def test_the_ends_of_calls_that_went_well() -> None:
    assert trailer_frame() == b"\x80\0\0\0\x10grpc-status: 0\r\n"
    assert connect_end() == b"\x02\0\0\0\x02{}"


def test_the_end_of_a_stream_of_connect_has_the_error() -> None:
    content = msgspec.json.decode(connect_end(NotFound())[5:])

    assert content["error"]["code"] == "not_found"
    assert content["error"]["message"] == "no such generation"
