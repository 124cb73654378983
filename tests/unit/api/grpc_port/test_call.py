"""A call as an ASGI request: what the application gets, and what becomes of its answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from starlette.types import Receive, Scope, Send

from api.dialects.grpc.status import trailer_frame
from api.dialects.grpc.wire import frame
from api.grpc_port.arriving import SlowMessages
from api.grpc_port.call import GrpcCall
from api.hub.contracts import ReadingOutcome
from api.transport.connection_limit import ConnectionLimit
from api.transport.extensions import OUTCOME, break_off
from shared.errors import NotFound

pytestmark = pytest.mark.usefixtures("one_loop")

App = Callable[[Scope, Receive, Send], Awaitable[None]]
METHOD = "/tailrace.v1.Tailrace/Generate"
HEAD = {
    "type": "http.response.start", "status": 200,
    "headers": [(b"content-type", b"application/grpc"), (b"x-request-id", b"r1")],
}  # fmt: skip


class Aborted(Exception):
    pass


class Context:
    """grpcio's side of a call, with what was done to it."""

    def __init__(self, metadata: tuple[tuple[str, Any], ...] = (), left_s: float | None = None):
        self.metadata = metadata
        self.left_s = left_s
        self.sent: list[bytes] = []
        self.head: Any = None
        self.status: tuple[grpc.StatusCode, str, dict[str, Any]] | None = None
        self.is_hanging = False

    def invocation_metadata(self) -> Any:
        return self.metadata

    def peer(self) -> str:
        return "ipv4:10.0.0.1:99"

    def time_remaining(self) -> float | None:
        return self.left_s

    def add_done_callback(self, callback: Any) -> None:
        self.done = callback

    async def read(self) -> bytes:
        return b"message"

    async def write(self, message: bytes) -> None:
        self.sent.append(message)

    async def send_initial_metadata(self, head: Any) -> None:
        assert self.head is None
        self.head = dict(head)

    async def abort(self, code: grpc.StatusCode, message: str, trailing: Any) -> None:
        self.status = (code, message, dict(trailing))
        if self.is_hanging:
            await asyncio.get_running_loop().create_future()
        raise Aborted


async def run(app: App, context: Context) -> Context:
    try:
        await GrpcCall(app, METHOD, context, slow=SlowMessages()).run()  # type: ignore[arg-type]
    except Aborted:
        pass
    return context


def answering(*chunks: bytes, more: bool = False) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD)
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": more})

    return app


async def test_the_application_gets_a_post_with_the_metadata() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.update(scope)
        seen["body"] = (await receive())["body"]
        await answering()(scope, receive, send)

    metadata = (
        ("authorization", "Bearer k"), ("host", "evil"), ("content-length", "9"),
        ("grpc-timeout", "1H"), ("x-bin", b"\xff"), ("X-Upper", "u"),
    )  # fmt: skip
    await run(app, Context(metadata, left_s=1.5))

    assert (seen["method"], seen["path"], seen["client"]) == ("POST", METHOD, ("10.0.0.1", 99))
    assert seen["body"] == b"message"
    assert seen["headers"] == [
        (b"host", b"localhost"), (b"content-type", b"application/grpc"),
        (b"authorization", b"Bearer k"), (b"x-bin", b"\xff"), (b"x-upper", b"u"),
        (b"grpc-timeout", b"1500m"),
    ]  # fmt: skip


async def test_each_frame_is_a_message_and_the_head_comes_before_the_first() -> None:
    context = await run(answering(frame(b"one"), frame(b"") + frame(b"three")), Context())

    assert context.sent == [b"one", b"", b"three"]
    assert context.head == {"x-request-id": "r1"}
    assert context.status is None


async def test_the_last_frame_is_the_status() -> None:
    context = await run(answering(trailer_frame(NotFound())), Context())

    assert context.status is not None
    code, message, trailing = context.status
    assert (code, message) == (grpc.StatusCode.NOT_FOUND, "no such generation")
    assert b"not_found" in trailing["grpc-status-details-bin"]
    assert trailing["x-request-id"] == "r1" and context.head is None


async def test_a_body_that_is_not_finished_is_never_ok() -> None:
    context = await run(answering(frame(b"one"), more=True), Context())

    assert context.status is not None and context.status[0] is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("outcome", "code", "word"),
    [
        (ReadingOutcome.CUT, grpc.StatusCode.UNAVAILABLE, b"too_slow"),
        (ReadingOutcome.DRAINED, grpc.StatusCode.UNAVAILABLE, b"draining"),
        (ReadingOutcome.ROTATED, grpc.StatusCode.UNAVAILABLE, b"draining"),
        (ReadingOutcome.EXPIRED, grpc.StatusCode.UNAUTHENTICATED, b"token_expired"),
        (ReadingOutcome.REVOKED, grpc.StatusCode.PERMISSION_DENIED, b"forbidden"),
        (ReadingOutcome.LOST, grpc.StatusCode.NOT_FOUND, b"expired"),
        (ReadingOutcome.FAILED, grpc.StatusCode.UNAVAILABLE, b"unavailable"),
    ],
)
async def test_a_stream_that_is_broken_off_says_why(
    outcome: ReadingOutcome, code: grpc.StatusCode, word: bytes
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(frame(b"one"), more=True)(scope, receive, send)
        scope[OUTCOME] = outcome
        break_off(scope)
        await receive()
        assert (await receive())["type"] == "http.disconnect"

    context = await run(app, Context())

    assert context.status is not None and context.status[0] is code
    assert word in context.status[2]["grpc-status-details-bin"]


async def test_a_status_that_nobody_takes_does_not_hold_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.grpc_port.call.STATUS_S", 0.01)
    context = Context()
    context.is_hanging = True

    with pytest.raises(asyncio.CancelledError):
        await run(answering(more=True), context)


async def test_the_bytes_that_grpcio_has_not_taken_are_counted() -> None:
    context = Context()
    call = GrpcCall(answering(), METHOD, context, slow=SlowMessages())
    left: list[int] = []

    async def write(message: bytes) -> None:
        left.append(call.get_write_buffer_size())

    context.write = write  # type: ignore[method-assign]
    await call._send(HEAD)
    await call._send({"type": "http.response.body", "body": frame(b"ab") * 3, "more_body": True})

    assert left == [21, 14, 7] and call.get_write_buffer_size() == 0


async def test_the_calls_of_an_address_are_bounded_and_give_their_places_back() -> None:
    addresses = ConnectionLimit(connections_max=9, now=lambda: 0.0, address_max=1)
    waiting = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await waiting.wait()
        await answering(frame(b"one"))(scope, receive, send)

    async def call(context: Context) -> None:
        slow = SlowMessages()
        with contextlib.suppress(Aborted):
            await GrpcCall(app, METHOD, context, slow=slow, addresses=addresses).run()

    first, second, third = Context(), Context(), Context()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(call(first))
        await asyncio.sleep(0)
        await call(second)
        waiting.set()
        await running
    await call(third)

    assert second.status is not None
    assert second.status[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert b"rate_limited" in second.status[2]["grpc-status-details-bin"]
    assert (first.sent, third.sent) == ([b"one"], [b"one"])
