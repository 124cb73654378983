"""The first frame of a socket that was opened without credentials: its token.

    {"type":"auth","token":"<key or token>"}

The socket may do nothing before this frame, and is closed if the frame does not come in time.
"""

from __future__ import annotations

import asyncio

from starlette.types import Receive

from api.errors import request_error
from api.identity.carriers import Presented
from api.intake.strict_json import decode_json

FRAME_S = 5.0  # from the acceptance of the socket to the frame
CHARACTERS_MAX = 16_384  # of the frame: a token has at most 8,192
BYTES_MAX = 4 * CHARACTERS_MAX  # so that a stranger takes no memory and no time for inflating
AUTH = "auth"


async def read_first_frame(receive: Receive) -> Presented | None:
    """Return the credentials of the first frame; None: the client has left.

    Raises:
        RequestError: 401, another frame came, or none in time.
    """
    try:
        async with asyncio.timeout(FRAME_S):
            message = await receive()
    except TimeoutError:
        raise request_error("unauthorized", f"no auth frame came within {FRAME_S:.0f} s") from None
    if message["type"] == "websocket.disconnect":
        return None
    text = message.get("text") or ""
    if not text or len(text) > CHARACTERS_MAX:
        raise request_error("unauthorized", "the first frame must be an auth frame")
    return Presented(read_token(decode_json(text)), is_silent=False)


def read_token(frame: object) -> bytes:
    """Return the credentials in an auth frame.

    Raises:
        RequestError: 401, it is no auth frame, or has no token.
    """
    if not isinstance(frame, dict) or frame.get("type") != AUTH:
        raise request_error("unauthorized", "the first frame must be an auth frame")
    token = frame.get("token")
    if not isinstance(token, str) or not token:
        raise request_error("unauthorized", "an auth frame has a member token, a string")
    return token.encode("utf-8", "surrogatepass")
