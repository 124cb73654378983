from __future__ import annotations

import logging
import re

import pytest
from starlette.types import Message, Receive, Scope, Send

from api.edge.error_boundary import ErrorBoundary
from api.edge.request_id import REQUEST_ID_CHARACTERS_MAX, request_id
from api.transport.extensions import GENERATION_ID
from shared.config import logs

MADE = re.compile(rb"req_[0-9a-f]{24}")


def scope_with(*ids: bytes) -> Scope:
    return {"type": "http", "path": "/", "headers": [(b"x-request-id", each) for each in ids]}


@pytest.mark.parametrize("sent", [b"r1", b"!~", b"a" * REQUEST_ID_CHARACTERS_MAX])
def test_the_id_of_the_client_is_taken(sent: bytes) -> None:
    assert request_id(scope_with(sent)) == sent


@pytest.mark.parametrize(
    "sent",
    [[], [b""], [b"a b"], ["é".encode()], [b"a\tb"], [b"a" * (REQUEST_ID_CHARACTERS_MAX + 1)],
     [b"a", b"b"]],
    ids=["none", "empty", "a space", "not ASCII", "a control character", "too long", "two"],
)  # fmt: skip
def test_an_unfit_id_is_replaced_once_by_a_new_id(sent: list[bytes]) -> None:
    scope = scope_with(*sent)

    assert MADE.fullmatch(made := request_id(scope))
    assert request_id(scope) == made


async def answered(app: object, scope: Scope) -> Message:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    await ErrorBoundary(app)(scope, receive, send)  # type: ignore[arg-type]
    return sent[0]


async def test_a_defect_names_its_request_in_the_answer_and_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR):
        start = await answered(app, scope_with(b"mine"))

    assert (start["status"], dict(start["headers"])[b"x-request-id"]) == (500, b"mine")
    (record,) = caplog.records
    assert record.__dict__["request_id"] == "mine"


async def test_an_answer_has_the_id_once_and_names_the_generation_that_it_started() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[GENERATION_ID] = "gen_1"
        await send({"type": "http.response.start", "status": 503, "headers": [(b"a", b"b")]})

    start = await answered(app, scope_with(b"mine"))

    assert start["headers"] == [
        (b"a", b"b"), (b"x-request-id", b"mine"), (b"x-generation-id", b"gen_1")
    ]  # fmt: skip


async def test_every_log_line_of_a_request_names_it(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(logs.request_id.get())
        await send({"type": "http.response.start", "status": 200, "headers": []})

    await answered(app, scope_with(b"mine"))

    assert seen == ["mine"]
