"""Reads the bytes of a request body within bounds: of its size, its time, and the node's memory.

A body may be large, and its client slow. So each body takes its bytes from the node's budget while
they arrive (api/body_room.py), and must keep a pace when it is large. Knows no member of a body.
Source: docs/protocol.md, "Limits".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from starlette.datastructures import Headers
from starlette.types import Receive

from api.body_room import PATIENCE_S, ArrivalPace, BodyHold, BodyRoom, bodies_full
from api.errors import request_error
from api.intake.body import too_large
from api.intake.content_coding import DECODED_BYTES, BodyDecoder, check_coding

BODY_S = PATIENCE_S  # for a body to be complete; after it, the rate of a larger body counts
COPIED_BYTES_MAX = 1_048_576  # a copy of more takes milliseconds

Buffer: TypeAlias = bytes | bytearray


async def read_body(
    headers: Headers,
    receive: Receive,
    *,
    bytes_max: int,
    hold: BodyHold | None = None,
    is_any_type: bool = False,
) -> Buffer:
    """Return a request body of type application/json, of at most `bytes_max` bytes.

    A body whose Content-Length is too large is refused before it is read. A body with
    Content-Encoding is decoded, and `bytes_max` bounds the bytes before and after. A result above
    `COPIED_BYTES_MAX` is not copied: a copy of 32 MiB would block the event loop for 15 ms.

    Args:
        hold: takes the bytes of the body from the node's budget while they arrive.
        is_any_type: accept any content type.

    Raises:
        RequestError: 415 for another content type or none, or an unknown Content-Encoding; 400 not
            of its Content-Encoding; 413 too large; 408 it arrives too slowly, or the client
            disconnected; 503 `bodies_full`.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not is_any_type:
        raise request_error("unsupported_media_type", "send content-type: application/json")
    coding = check_coding(",".join(headers.getlist("content-encoding")))
    announced = headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > bytes_max:
        raise too_large(bytes_max)
    hold = hold or BodyRoom(bytes_max, bytes_max).hold()
    arriving = _Arriving(BodyDecoder(coding), hold, bytes_max)
    body = await arriving.read(receive)
    return bytes(body) if len(body) <= COPIED_BYTES_MAX else body


class _Arriving:
    """One body while it arrives."""

    def __init__(self, decoder: BodyDecoder, hold: BodyHold, bytes_max: int) -> None:
        self._decoder = decoder
        self._hold = hold
        self._bytes_max = bytes_max
        self._body = bytearray()
        self._received = 0  # bytes before they are decoded

    async def read(self, receive: Receive) -> bytearray:
        now = asyncio.get_running_loop().time
        pace = ArrivalPace(now(), BODY_S)
        try:
            async with asyncio.timeout_at(pace.due_s) as limit:
                self._hold.on_given_up = lambda: limit.reschedule(now())
                while await self._take(receive, now):
                    due_s = pace.note(self._received, now())
                    if due_s != limit.when() and not self._hold.is_given_up:
                        limit.reschedule(due_s)
        except BaseException as exc:
            self._body = bytearray()  # the exception refers to this frame
            if not isinstance(exc, TimeoutError):
                raise
            if self._hold.is_given_up:
                raise bodies_full() from None
            raise request_error("request_timeout", pace.complaint()) from None
        finally:
            self._hold.complete()
        self._decoder.finish()
        return self._body

    async def _take(self, receive: Receive, now: Callable[[], float]) -> bool:
        """Receive the next bytes; return whether there are more."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise request_error("request_timeout", "the client left before its body was complete")
        data = message.get("body", b"")
        self._received += len(data)
        if self._received > self._bytes_max:
            raise too_large(self._bytes_max)
        for piece in self._decoder.feed(data):
            if len(self._body) + len(piece) > self._bytes_max:
                raise too_large(self._bytes_max)
            self._hold.grow(len(piece), now())
            self._body += piece
            if len(piece) >= DECODED_BYTES:
                await asyncio.sleep(0)  # a few bytes may stand for many pieces
        return bool(message.get("more_body", False))
