"""The table of error codes, the bodies of errors, and the error boundary."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from api.edge.error_boundary import ErrorBoundary
from api.errors import CODES, ErrorBody, ErrorShape, MethodNotAllowed, request_error
from shared.errors import CursorInvalid, Draining, Expired, NotFound, RequestError, Unavailable


async def call(
    app: Any,
    scope: dict[str, Any] | None = None,
    shapes: list[tuple[str, ErrorShape]] | None = None,
) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    boundary = ErrorBoundary(app, shapes=shapes or ())
    await boundary(scope or {"type": "http", "path": "/x"}, receive_nothing, send)
    return sent


async def receive_nothing() -> Message:
    raise AssertionError("nothing to receive")


def raising(error: Exception, *, after_start: bool = False) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if after_start:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return app


class Transport:
    is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


@pytest.mark.parametrize("error", [CursorInvalid("x"), NotFound(), Expired()])
def test_shared_errors_have_the_status_of_the_table(error: RequestError) -> None:
    assert CODES[error.code].status == error.status


def test_close_codes_below_4500_are_retryable_and_the_others_are_not() -> None:
    for name, code in CODES.items():
        if 4000 <= code.close < 4500:
            assert code.is_retryable, name
        if code.close >= 4500:
            assert not code.is_retryable, name


async def test_a_request_error_is_sent_as_its_response() -> None:
    start, body = await call(raising(Draining()))

    assert start["status"] == 503
    assert dict(start["headers"])[b"retry-after"] == b"1"
    assert dict(start["headers"])[b"content-type"] == b"application/json"
    error = json.loads(body["body"])["error"]
    assert (error["code"], error["retryable"]) == ("draining", True)


async def test_redis_away_is_503_with_retry_after() -> None:
    start, body = await call(raising(Unavailable("connection refused")))

    assert start["status"] == 503
    assert b"retry-after" in dict(start["headers"])
    assert b"connection refused" not in body["body"]


async def test_a_401_has_the_header_www_authenticate() -> None:
    start, _ = await call(raising(request_error("unauthorized", "no")))

    assert dict(start["headers"])[b"www-authenticate"] == b"Bearer"


async def test_a_405_names_the_allowed_methods() -> None:
    start, _ = await call(raising(MethodNotAllowed(["POST", "GET"])))

    assert dict(start["headers"])[b"allow"] == b"GET, POST"


async def test_lone_surrogates_in_a_message_are_escaped() -> None:
    _, body = await call(raising(CursorInvalid("\ud800")))

    assert json.loads(body["body"])["error"]["code"] == "cursor_invalid"


async def test_an_unexpected_exception_is_500_and_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        start, body = await call(raising(ZeroDivisionError("secret")))

    assert start["status"] == 500
    assert b"secret" not in body["body"]
    assert caplog.records[0].exc_info is not None


async def test_a_request_that_is_cancelled_at_shutdown_is_answered_503() -> None:
    """Without this answer uvicorn would send 500, after which a client does not reconnect."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    boundary = ErrorBoundary(wait)
    async with asyncio.TaskGroup() as group:
        scope = {"type": "http", "path": "/x"}
        task = group.create_task(boundary(scope, receive_nothing, send))
        await asyncio.sleep(0)
        task.cancel()

    assert task.cancelled()
    assert [message.get("status") for message in sent] == [503, None]
    assert json.loads(sent[1]["body"])["error"]["code"] == "draining"


async def test_an_error_after_the_start_of_the_response_aborts_the_connection() -> None:
    transport = Transport()
    scope = {"type": "http", "path": "/", "extensions": {"tailrace.transport": transport}}
    sent = await call(raising(NotFound(), after_start=True), scope)

    assert [message["type"] for message in sent] == ["http.response.start"]
    assert transport.is_aborted


async def test_without_a_transport_an_exception_makes_the_server_close() -> None:
    with pytest.raises(ConnectionAbortedError):
        await call(raising(NotFound(), after_start=True))


async def test_a_handshake_is_refused_with_the_status_of_the_error() -> None:
    scope = {"type": "websocket", "path": "/", "extensions": {"websocket.http.response": {}}}
    start, _ = await call(raising(request_error("forbidden", "no")), scope)

    assert (start["type"], start["status"]) == ("websocket.http.response.start", 403)


async def test_an_unexpected_exception_on_an_open_socket_closes_it_with_1011() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        raise ZeroDivisionError

    sent = await call(app, {"type": "websocket", "path": "/"})

    assert sent[-1]["type"] == "websocket.close"
    assert sent[-1]["code"] == 1011


def shaped(error: RequestError) -> ErrorBody:
    return ErrorBody(error.code.encode(), b"text/plain", [(b"x-shape", b"own")])


@pytest.mark.parametrize(
    ("path", "is_shaped"),
    [("/own", True), ("/own/below/it", True), ("/owner", False), ("/", False)],
)
@pytest.mark.parametrize("error", [NotFound(), Unavailable("x"), ValueError("x")])
async def test_errors_at_and_below_a_path_have_the_shape_of_that_path(
    path: str, is_shaped: bool, error: Exception
) -> None:
    scope = {"type": "http", "path": path}
    start, body = await call(raising(error), scope, shapes=[("/own", shaped)])
    headers = dict(start["headers"])

    assert (headers.get(b"x-shape") == b"own") == is_shaped
    assert (headers[b"content-type"] == b"text/plain") == is_shaped
    assert headers[b"content-length"] == b"%d" % len(body["body"])
    assert start["status"] == {NotFound: 404, Unavailable: 503}.get(type(error), 500)


async def test_a_refused_handshake_has_the_shape_of_its_path() -> None:
    extensions = {"websocket.http.response": {}}
    scope = {"type": "websocket", "path": "/own", "extensions": extensions}
    start, body = await call(raising(NotFound()), scope, shapes=[("/own", shaped)])
    assert start["type"] == "websocket.http.response.start"
    assert body["body"] == b"not_found"
