"""Answers 503 instead of success if Sentinel has changed the master during the request.

A handler may write to Redis in several steps. If Sentinel moves the master between two of them, the
first step may be lost with the old master, although the last step succeeded at the new one. Then
"accepted" or "cancelled" would be false. So a request that may write is answered with a success
only if no switch was noticed since the request began; otherwise with `503` `unavailable`.

Invariant: passes everything on unchanged otherwise. Readers (GET) pass without a look.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import Unavailable
from shared.redis.sentinel.follower import Follower

READING = ("GET", "HEAD", "OPTIONS")


class SwitchGuard:
    """An ASGI layer; it stands inside the error boundary, which turns `Unavailable` into 503."""

    def __init__(self, app: ASGIApp, follower: Follower) -> None:
        self._app = app
        self._follower = follower

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READING:
            await self._app(scope, receive, send)
            return
        switches = self._follower.switches

        async def send_if_same(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                if self._follower.switches != switches:
                    raise Unavailable(
                        "Redis's master has changed during the request: send it again"
                    )
            await send(message)

        await self._app(scope, receive, send_if_same)
