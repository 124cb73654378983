"""One call of the port for gRPC, as a request to the node's own ASGI application.

So a call passes the same checks as every request (credentials, scopes, limits, origins), and its
answer is read through the same hub. This module only converts: metadata to headers, the body's
frames to messages, the last frame to the status of the call.

Back-pressure: grpcio takes one message at a time, and `write` returns when the flow control of
HTTP/2 has taken it. So at most one message of a call is buffered below, and a client that stops
reading blocks the write, like a full socket: the hub cuts it. Invariant: a call gets the status OK
only if the application has finished its body.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import grpc
from starlette.types import ASGIApp, Message, Scope

from api.dialects.grpc.status import code_of, trailers
from api.dialects.grpc.timeouts import grpc_timeout
from api.dialects.grpc.wire import HEAD_BYTES, TRAILERS
from api.errors import request_error
from api.grpc_port.arriving import SlowMessages, read_message
from api.grpc_port.peer import peer_address
from api.hub.contracts import ReadingOutcome
from api.transport.connection_limit import NO_LIMIT, ConnectionLimit, address_limit_error
from api.transport.extensions import GRPC_CALL, OUTCOME, TRANSPORT
from shared.errors import RequestError

STATUS_S = 1.0  # for the status of a call that was broken off to be sent; then grpcio goes on alone
_CODES = {code.value[0]: code for code in grpc.StatusCode}
# Metadata that a client may not set: the port says them itself.
_OWN_HEADERS = frozenset(
    {"host", "content-type", "content-length", "transfer-encoding", "grpc-timeout", "connection"}
)
# Headers of our answers that say nothing over gRPC.
_UNSENT_HEADERS = frozenset(
    {"content-type", "content-length", "cache-control", "x-accel-buffering", "www-authenticate"}
)


class GrpcCall:
    """One call.

    Args:
        method: the path, `/tailrace.v1.Tailrace/Generate`.
        context: of grpcio's server.
        slow: counts the messages that take long to arrive.
        addresses: counts the calls under way of each address.
    """

    def __init__(
        self,
        app: ASGIApp,
        method: str,
        context: Any,
        *,
        slow: SlowMessages,
        addresses: ConnectionLimit = NO_LIMIT,
    ) -> None:
        self._app = app
        self._method = method
        self._context = context
        self._slow = slow
        self._addresses = addresses
        self._left = asyncio.Event()
        self._is_read = False
        self._is_finished = False
        self._is_broken = False
        self._unsent_bytes = 0
        self._trailers: dict[str, str] = {}
        self._head: list[tuple[str, str]] | None = None  # to be sent before the first message
        self._scope: Scope = {}

    async def run(self) -> None:
        """Serve the call, and set its status."""
        scope = self._scope = self._new_scope()
        self._context.add_done_callback(lambda _: self._left.set())
        host = scope["client"][0] if scope["client"] else None
        address = self._addresses.peers.limited_address(host, scope["headers"])
        if address is not None and not self._addresses.acquire(address):
            error = address_limit_error()
            await self._fail(code_of(error).number, dict(trailers(error)))
            return
        try:
            await self._serve()
        finally:
            if address is not None:
                self._addresses.release(address)

    async def _serve(self) -> None:
        await self._app(self._scope, self._receive, self._send)
        status = self._trailers
        if not self._is_finished or self._is_broken:
            status = dict(trailers(broken_off(self._scope.get(OUTCOME))))
        number = int(status.get("grpc-status", "0"))
        if number:
            await self._fail(number, status)

    def _new_scope(self) -> Scope:
        context = self._context
        headers = [(b"host", b"localhost"), (b"content-type", b"application/grpc")]
        headers += _headers(context.invocation_metadata() or ())
        remaining_s = context.time_remaining()
        if remaining_s is not None:
            headers.append((b"grpc-timeout", grpc_timeout(remaining_s).encode()))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "2",
            "method": "POST",
            "scheme": "http",
            "path": self._method,
            "raw_path": self._method.encode("latin-1", "replace"),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": peer_address(context.peer()),
            "server": None,
            "extensions": {GRPC_CALL: True, TRANSPORT: self},
        }

    async def _receive(self) -> Message:
        if not self._is_read:
            self._is_read = True
            body = await read_message(self._context, self._slow)
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = list(_metadata(message["headers"]))
            return
        await self._write(message.get("body", b""))
        if not message.get("more_body", False):
            self._is_finished = True

    async def _write(self, chunk: bytes) -> None:
        """Write the frames of a chunk, which the application never cuts."""
        start, self._unsent_bytes = 0, len(chunk)
        while start < len(chunk):
            stop = start + HEAD_BYTES + int.from_bytes(chunk[start + 1 : start + HEAD_BYTES], "big")
            payload = chunk[start + HEAD_BYTES : stop]
            if chunk[start] & TRAILERS:
                self._trailers = _parsed(payload)
            else:
                if self._head is not None:
                    head, self._head = self._head, None
                    await self._context.send_initial_metadata(head)
                await self._context.write(payload)
            start = stop
            self._unsent_bytes = len(chunk) - start

    async def _fail(self, number: int, status: dict[str, str]) -> None:
        details = status.get("grpc-status-details-bin", "")
        trailing: list[tuple[str, str | bytes]] = []
        if details:
            padded = details + "=" * (-len(details) % 4)
            trailing.append(("grpc-status-details-bin", base64.b64decode(padded)))
        trailing += [
            pair for pair in self._head or () if pair[0] in ("x-request-id", "retry-after")
        ]
        message = unquote(status.get("grpc-message", ""))
        # A client that reads nothing would hold this task for as long as its connection lives. For
        # grpcio a cancelled task is no error, and the status leaves when the client reads again.
        try:
            async with asyncio.timeout(STATUS_S):
                await self._context.abort(_CODES[number], message, tuple(trailing))
        except TimeoutError:
            raise asyncio.CancelledError from None

    # The transport below ASGI: api/transport/extensions.py

    def abort(self) -> None:
        """Break the call off: it ends with an error."""
        self._is_broken = True
        self._left.set()

    def get_write_buffer_size(self) -> int:
        """Return the bytes of the present chunk that grpcio has not taken yet."""
        return self._unsent_bytes


def broken_off(outcome: ReadingOutcome | None) -> RequestError:
    """Return the error of a stream that was broken off before its end."""
    match outcome:
        case ReadingOutcome.CUT:
            return _again("too_slow", "the client read too slowly")
        case ReadingOutcome.EXPIRED:
            error = request_error("token_expired", "the credentials have expired")
            error.status = 401
            return error
        case ReadingOutcome.REVOKED:
            return request_error("forbidden", "the key was removed")
        case ReadingOutcome.LOST:
            return request_error("expired", "the log has expired before its end was read")
        case ReadingOutcome.DRAINED | ReadingOutcome.ROTATED:
            return _again("draining", "this node gives the stream up")
    return _again("unavailable", "the stream was broken off")


def _again(code: str, why: str) -> RequestError:
    return request_error(code, f"{why}: Attach with the last event id, at any node")


def _headers(metadata: Iterable[Any]) -> list[tuple[bytes, bytes]]:
    found = []
    for name, value in metadata:
        if name in _OWN_HEADERS or name.startswith(":"):
            continue
        raw = value if isinstance(value, bytes) else value.encode("latin-1", "replace")
        found.append((name.lower().encode("latin-1", "replace"), raw))
    return found


def _metadata(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, str]]:
    for name, value in headers:
        if (lower := name.decode("latin-1").lower()) not in _UNSENT_HEADERS:
            yield lower, value.decode("latin-1")


def _parsed(payload: bytes) -> dict[str, str]:
    lines = payload.decode("ascii").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
