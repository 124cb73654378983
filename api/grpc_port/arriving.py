"""Reads the one message of a call within bounds of time and of the node's memory.

grpcio gives a message only as a whole, so the node cannot count its bytes while they arrive. Nearly
every message arrives with the call's head. A message that takes longer than `QUICK_S` needs one of
`SLOW_AT_ONCE` places, so slow messages hold `SLOW_AT_ONCE` times `MESSAGE_BYTES_MAX` at most.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from api.body_room import PATIENCE_S, bodies_full
from api.errors import request_error

MESSAGE_BYTES_MAX = 8_388_608  # of a client; the HTTP port takes larger ones
QUICK_S = 0.25
SLOW_AT_ONCE = 32


class SlowMessages:
    """Counts the messages of one node that take long to arrive.

    Attributes:
        number: of messages that have a place now.
    """

    def __init__(self) -> None:
        self.number = 0

    def take(self) -> bool:
        """Take a place; False: there is none."""
        if self.number >= SLOW_AT_ONCE:
            return False
        self.number += 1
        return True

    def give_back(self) -> None:
        """Give a taken place back."""
        self.number -= 1


async def read_message(context: Any, slow: SlowMessages) -> bytes:
    """Return the message of a call.

    Raises:
        RequestError: 408, it did not come in time; 503 `bodies_full`; 400, the client sent none.
    """
    loop = asyncio.get_running_loop()
    has_place = is_refused = False
    try:
        async with asyncio.timeout(PATIENCE_S) as limit:

            def need_place() -> None:
                nonlocal has_place, is_refused
                has_place = slow.take()
                if not has_place:
                    is_refused = True
                    limit.reschedule(loop.time())

            timer = loop.call_later(QUICK_S, need_place)
            try:
                message = await context.read()
            finally:
                timer.cancel()
    except TimeoutError:
        if is_refused:
            raise bodies_full() from None
        why = f"the message was not complete after {PATIENCE_S:.0f} seconds"
        raise request_error("request_timeout", why) from None
    finally:
        if has_place:
            slow.give_back()
    if message is grpc.aio.EOF:
        raise request_error("invalid_protobuf", "the call has no message")
    return bytes(message)
